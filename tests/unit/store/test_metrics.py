"""Lines of metrics, and what of them outlives an interruption."""

import errno
import json
import os
from contextlib import nullcontext

import pytest

from mpilayer.errors import DamageWarning, FileWarning
from mpilayer.store.metrics import MetricsReader, MetricsWriter, keep_until

SECONDS = ("started", "training", "transform", "monitor", "waiting", "sending")
LINE = {"used": 0, "train_error": 1.5, **dict.fromkeys(SECONDS, 0.25)}


def line(epoch):
    """Return the line of an epoch."""
    return {**LINE, "epoch": epoch, "validation_error": None}


@pytest.fixture
def path(tmp_path):
    """Give a file of five epochs."""
    path = tmp_path / "layer-1.jsonl"
    with MetricsWriter(path) as writer:
        for epoch in range(1, 6):
            writer.write({**line(epoch), "validation_error": float("nan")})
    return path


def epochs(path):
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("most", [0, 3, 5, 9])
def test_later_lines_are_dropped(path, most):
    before = path.read_text().splitlines()[:most]
    with nullcontext() if most <= 5 else pytest.warns(DamageWarning, match="5 are"):
        lines = keep_until(path, "epoch", most)
    assert epochs(path) == [line["epoch"] for line in lines]
    assert path.read_text().splitlines() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("broken", ['{"epoch": 6, "err', "{", '{"epoch": 6}'])
def test_a_line_that_was_not_finished_is_dropped(path, broken):
    with path.open("a") as file:
        file.write(broken)
    assert len(keep_until(path, "epoch", 5)) == 5
    assert epochs(path) == [1, 2, 3, 4, 5]
    with MetricsWriter(path) as writer:
        writer.write(line(6))
    assert epochs(path) == [1, 2, 3, 4, 5, 6]


def test_a_missing_file_becomes_an_empty_one(tmp_path):
    path = tmp_path / "metrics" / "layer-1.jsonl"
    with pytest.warns(DamageWarning, match="must have 3 lines; 0 are whole"):
        assert keep_until(path, "epoch", 3) == []
    assert path.read_text() == ""
    reader = MetricsReader(path)
    path.unlink()
    path.parent.rmdir()
    # A reader meets the lines that follow, in a folder that somebody has removed.
    for number in (1, 2):
        with MetricsWriter(path) as writer:
            writer.write(line(number))
        assert [line["epoch"] for line in reader.new_lines()] == [number]


TORN = [
    b'{"layer": 1, "epo',
    b"[1, 2]",
    b"\x00\xff\xfe",
    b'{"epoch": "2"}',
    *(
        json.dumps({**line(2), key: value}).encode()
        for key, value in (
            *(("epoch", 2.5), ("epoch", -1), ("validation_error", "low")),
            *(("training", None), ("training", [1.0]), ("started", True)),
            *(("team", 3), ("team", [[0, 1.0]]), ("team", [["a", 1.0, 1.0]])),
            *(("ranks", [["a", 1.0, 1.0]]), ("ranks", [["a", 1.0, 1.0, -1.0]])),
        )
    ),
    b'{"epoch": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
]


@pytest.mark.parametrize("torn", TORN, ids=range(len(TORN)))
@pytest.mark.parametrize("where", [0, 1, 2])
def test_damaged_lines_are_left_out_wherever_they_stand(tmp_path, torn, where):
    path = tmp_path / "layer-1.jsonl"
    lines = [json.dumps(line(epoch)).encode() for epoch in (1, 2)]
    lines[where:where] = [torn]
    path.write_bytes(b"\n".join(lines) + b"\n")
    reader = MetricsReader(path)
    assert [found["epoch"] for found in reader.new_lines()] == [1, 2]
    assert reader.damaged == 1


def fail_once(monkeypatch, number, half=True):
    """Let a writing fail, in the midst of the line if so wished."""
    write = os.write
    calls = []

    def failing(file, content):
        calls.append(len(content))
        if len(calls) == 1 and half:
            return write(file, content[: len(content) // 2])
        if len(calls) <= 1 + half:
            raise OSError(number, os.strerror(number))
        return write(file, content)

    monkeypatch.setattr(os, "write", failing)


@pytest.mark.parametrize("half", [False, True])
def test_a_line_that_was_not_written_is_written_with_the_next(path, monkeypatch, half):
    with MetricsWriter(path) as writer:
        fail_once(monkeypatch, errno.ENOSPC, half)
        with pytest.warns(FileWarning, match="no space left on device"):
            writer.write(line(6))
        assert epochs(path) == [1, 2, 3, 4, 5]
        writer.write(line(7))
    assert epochs(path) == [1, 2, 3, 4, 5, 6, 7]


def test_a_line_after_half_a_one_is_a_line_of_its_own(path, monkeypatch):
    monkeypatch.setattr(os, "ftruncate", lambda *_: None)
    with MetricsWriter(path) as writer:
        fail_once(monkeypatch, errno.EIO)
        with pytest.warns(FileWarning, match="input/output error"):
            writer.write(line(6))
        writer.write(line(7))
    reader = MetricsReader(path)
    assert [found["epoch"] for found in reader.new_lines()] == [1, 2, 3, 4, 5, 6, 7]
    assert reader.damaged == 1


def test_a_link_is_not_followed(tmp_path):
    mine, path = tmp_path / "mine", tmp_path / "layer-1.jsonl"
    mine.write_text("mine")
    path.symlink_to(mine)
    with MetricsWriter(path) as writer, pytest.warns(FileWarning, match="links"):
        writer.write(line(1))
    assert mine.read_text() == "mine"
