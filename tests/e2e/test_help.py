"""Help: every command and setting is there, in 80 columns."""

from dataclasses import fields

import pytest

from mpilayer.cli.main import COMMANDS
from mpilayer.cli.pages import PARTS
from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig, flag
from tests.support import launch
from tests.support.terminal import Terminal

CONFIGS = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "sparse": SparseConfig,
    "compare": SparseConfig,
}
ALL = [*COMMANDS, *(f"{name} {part}" for name in PARTS for part in PARTS[name])]


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


@pytest.mark.parametrize("command", ALL)
def test_every_command_is_explained(command):
    text = show(*command.split(), "--help")
    assert text.startswith(f"usage: mpilayer {command}")
    assert show(*command.split(), "-h") == text
    if command in CONFIGS:
        assert "--config FILE.toml" in text
        for item in fields(CONFIGS[command]):
            assert f"{flag(item.name)} " in text or f"{flag(item.name)}," in text


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
    with Terminal("evaluate", folder) as screen:
        screen.assert_ended(code=2)
    first, path, *others = screen.text.splitlines()
    assert (first, path) == ("mpilayer: error:", str(folder))
    assert 0 < max(map(len, others)) <= 80


def test_the_version():
    import mpilayer

    version = f"mpilayer {mpilayer.__version__}\n"
    assert show("--version") == show("--version", apart=True) == version


@pytest.mark.parametrize("arguments", [(), ("pretrain", "--help")])
def test_help_comes_once_from_several_ranks(arguments):
    assert show(*arguments, ranks=2) == show(*arguments)
