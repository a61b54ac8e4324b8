"""Help: every command and setting is there, in 80 columns."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from dataclasses import fields

import pytest

from mpilayer.cli.main import COMMANDS
from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig, flag
from tests.support import launch

CONFIGS = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "sparse": SparseConfig,
    "compare": SparseConfig,
}


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    """Let lines have 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


def show(*arguments, **options):
    """Return a help text, checked to fit."""
    result = launch.run(*arguments, **options).ok()
    assert result.stderr == ""
    assert max(map(len, result.stdout.splitlines())) <= 80, str(result)
    return result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_explained(command):
    text = show(command, "--help")
    assert text.startswith(f"usage: mpilayer {command}")
    assert show(command, "-h") == text
    if command in CONFIGS:
        assert "--config FILE.toml" in text
        for item in fields(CONFIGS[command]):
            assert f"{flag(item.name)} " in text or f"{flag(item.name)}," in text


@pytest.mark.parametrize(
    "command",
    [
        *("pretrain", "finetune", "sparse", "compare", "run", "config", "report"),
        *("export", "encode", "reconstruct", "job pretrain", "job scaling"),
        *("data prepare", "data patches"),
    ],
)
def test_what_makes_something_replaces_it_by_the_same_word(command):
    text = show(*command.split(), "--help")
    assert "--replace " in text
    assert "--force" not in text


def test_mpilayer_alone_lists_the_commands():
    text = show()
    assert text.startswith("usage: mpilayer")
    for name, summary in COMMANDS.items():
        assert f"  {name}" in text
        assert summary in text
    assert show("--help") == text


def test_a_wrong_command_is_answered_with_the_right_ones():
    result = launch.run("pretrian")
    launch.assert_user_error(result, "'pretrian'. Did you mean 'pretrain'?")
    launch.assert_user_error(launch.run("zzz"), *COMMANDS)
    result = launch.run("--versio")
    launch.assert_user_error(result, "--versio. Did you mean --version?")


def test_errors_are_wrapped_on_a_terminal_alone(tmp_path):
    folder = tmp_path / ("long-name-" * 9)
    line = f"mpilayer: error: {folder} must be the directory of a run;"
    assert launch.run("evaluate", folder).stderr.startswith(line)
    shown = on_a_terminal("evaluate", folder, columns=60).splitlines()
    assert str(folder) in shown
    assert "mpilayer: error:" in shown
    assert len(shown) > 3
    assert max(len(text) for text in shown if text != str(folder)) <= 60


def on_a_terminal(*arguments, columns):
    """Return what a command prints to a terminal of so many columns."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, *launch.MODULE, *map(str, arguments)]
    with subprocess.Popen(
        command, stderr=child, stdout=child, env=launch.environment(), cwd=launch.ROOT
    ) as process:
        os.close(child)
        printed = b""
        # Where the other end is closed Linux answers with an error.
        with suppress(OSError):
            while block := os.read(parent, 4096):
                printed += block
    os.close(parent)
    assert process.returncode == 2
    return printed.decode()


def test_the_version():
    import mpilayer

    version = f"mpilayer {mpilayer.__version__}\n"
    assert show("--version") == show("--version", apart=True) == version


@pytest.mark.parametrize("arguments", [(), ("pretrain", "--help")])
def test_help_comes_once_from_several_ranks(arguments):
    assert show(*arguments, ranks=2) == show(*arguments)
