"""Messages for mistakes, and who raises them."""

import pytest

from mpilayer import errors
from mpilayer.errors import ConfigError, MpilayerError, unknown


def test_unknown_names_the_legal_ones_and_guesses():
    assert unknown("loss", "sqared", ["squared", "cross-entropy"]) == (
        "unknown loss 'sqared'; choose from squared, cross-entropy. "
        "Did you mean 'squared'?"
    )
    many = [f"key{i}" for i in range(20)]
    assert unknown("key", "kye7", many) == "unknown key 'kye7'. Did you mean 'key7'?"
    assert "choose from key0, key1" in unknown("key", "zzz", many)
    assert unknown("loss", "zzz", iter(["squared"])) == (
        "unknown loss 'zzz'; choose from squared."
    )


@pytest.mark.parametrize(
    "kind", ["Config", "Data", "Checkpoint", "Schedule", "Communication"]
)
def test_every_kind_can_be_caught_as_one(kind):
    assert issubclass(getattr(errors, f"{kind}Error"), MpilayerError)


def test_an_error_is_one_rank_s_until_all_have_it():
    error = ConfigError("x")
    assert not error.collective
    error.collective = True
    assert not ConfigError("y").collective
