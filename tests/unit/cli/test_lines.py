"""What is shown: lines whole in logs, broken between words on a terminal."""

import os
import time
from pathlib import Path
from threading import Thread

import pytest

from mpilayer import environment
from mpilayer.cli import lines, results, show
from mpilayer.errors import CheckpointError

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


def test_a_terminal_that_cannot_be_opened_is_none(monkeypatch, capsys):
    monkeypatch.setattr(environment, "terminal", lambda: Path("/dev/pts/99999"))
    assert lines.width() == 0
    assert not show.screen().is_terminal


def test_a_pipe_that_does_not_wait_is_waited_for():
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    text, received = b"x" * 300_000, bytearray()

    def read():
        time.sleep(0.1)
        while piece := os.read(ours, 9999):
            received.extend(piece)

    reader = Thread(target=read)
    reader.start()
    with lines._stream(theirs, "ascii") as stream:
        stream.write(text.decode())
    os.close(theirs)
    reader.join()
    assert received == text
    os.close(ours)


def test_what_is_lost_is_known_where_somebody_listens():
    full = os.open("/dev/full", os.O_WRONLY)
    outlet = lines.Outlet(full, "w", closefd=False)
    assert outlet.write(b"text") == 4
    assert outlet.lost == "No space left on device"
    os.close(full)
    ours, theirs = os.pipe()
    os.close(ours)
    outlet = lines.Outlet(theirs, "w")
    assert outlet.write(b"text") == 4
    assert outlet.lost == ""
    outlet.close()


@pytest.mark.parametrize(
    "told", [{}, {"ranks": "x"}, {"ranks": 1, "runs": []}, {"ranks": 1, "runs": {}}]
)
def test_results_that_no_run_tells(told):
    message = "what a tells of its end must be as it was written; .*'mpilayer resume a'"
    with pytest.raises(CheckpointError, match=message), show.told_by(Path("a")):
        results.show_comparison(told)
