"""Lines on standard error: whole in logs, broken between words on a terminal."""

import pytest

from mpilayer.cli import lines, show

PATH = "/a/" + "long-name/" * 5 + "run"


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("one two three", 0, "one two three"),
        ("one two three", 13, "one two three"),
        ("one  two three", 9, "one  two\nthree"),
        ("one two\nthree four", 7, "one two\nthree\nfour"),
        ("  one two", 6, "  one\n  two"),
        (f"in {PATH} there", 10, f"in\n{PATH}\nthere"),
        ("", 5, ""),
    ],
)
def test_wrapped(text, columns, expected):
    assert lines.wrapped(text, columns) == expected


def test_what_is_no_terminal_gets_long_lines(capsys):
    text = "word " * 99
    show.say(text)
    assert capsys.readouterr().err == f"{text}\n"


def test_what_progress_measures_is_named_once():
    goals = {"layer-1": 20, "layer-2": 20, "layer-3": None}
    latest = {
        "layer-1": {"epoch": 4, "validation_error": 9.49},
        "layer-2": {"epoch": 3, "validation_error": 4.3},
    }
    assert show.progress_line(goals, latest) == (
        "layer 1: 4/20 (validation error 9.49)  layer 2: 3/20 (4.30)  layer 3: 0"
    )
    latest = {"sparse": {"evaluation": 277, "cost": 2.68}}
    assert show.progress_line({"sparse": 500}, latest) == "sparse: 277/500 (cost 2.68)"


def test_counts():
    assert [show.count(n, "rank") for n in (0, 1, 2)] == [
        "0 ranks",
        "1 rank",
        "2 ranks",
    ]
