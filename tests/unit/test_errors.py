"""Messages for mistakes, and who raises them."""

from mpilayer.errors import ConfigError, unknown


def test_unknown_names_the_legal_ones_and_guesses():
    assert unknown("loss", "sqared", ["squared", "cross-entropy"]) == (
        "unknown loss 'sqared'; choose from squared, cross-entropy. "
        "Did you mean 'squared'?"
    )
    many = [f"key{i}" for i in range(20)]
    assert unknown("key", "kye7", many) == "unknown key 'kye7'. Did you mean 'key7'?"
    assert "choose from key0, key1" in unknown("key", "zzz", many)
    assert unknown("a", "zzz", iter(["b"])) == "unknown a 'zzz'; choose from b."


def test_an_error_is_one_rank_s_until_all_have_it():
    assert ConfigError("x").of_all_ranks().collective
    assert not ConfigError("y").collective
