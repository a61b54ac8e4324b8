"""Help: every command and setting is there, in 80 columns."""

from dataclasses import fields

import pytest

from mpilayer.cli.main import COMMANDS
from mpilayer.config import FinetuneConfig, PretrainConfig, SparseConfig, flag
from tests.support import launch

COLUMNS = {"COLUMNS": "80"}


def show(*arguments):
    """Return a help text, checked to fit."""
    result = launch.run(*arguments, variables=COLUMNS).ok()
    assert result.stderr == ""
    assert max(map(len, result.stdout.splitlines())) <= 80, str(result)
    return result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_explained(command):
    text = show(command, "--help")
    assert text.startswith(f"usage: mpilayer {command}")
    assert show(command, "-h") == text


@pytest.mark.parametrize(
    ("command", "config"),
    [
        ("pretrain", PretrainConfig),
        ("finetune", FinetuneConfig),
        ("sparse", SparseConfig),
        ("compare", SparseConfig),
    ],
)
def test_every_setting_is_a_flag(command, config):
    text = show(command, "--help")
    for item in fields(config):
        assert f"{flag(item.name)} " in text or f"{flag(item.name)}," in text
    assert "--config FILE.toml" in text


def test_mpilayer_alone_lists_the_commands():
    text = show()
    assert text.startswith("usage: mpilayer")
    for name, summary in COMMANDS.items():
        assert f"  {name}" in text
        assert summary in text
    assert show("--help") == text


def test_a_wrong_command_is_answered_with_the_right_ones():
    result = launch.run("pretrian")
    launch.assert_user_error(result, *COMMANDS, "Did you mean 'pretrain'?")


def test_the_version():
    import mpilayer

    assert show("--version") == f"mpilayer {mpilayer.__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("pretrain", "--help"), ("--version",)])
def test_help_comes_once_from_several_ranks(arguments):
    result = launch.run(*arguments, ranks=2, variables=COLUMNS).ok()
    assert result.stdout == show(*arguments)
