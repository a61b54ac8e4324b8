"""Lines of metrics, and what of them outlives an interruption."""

import json

import pytest

from mpilayer.store.metrics import MetricsReader, MetricsWriter, keep_until


@pytest.fixture
def path(tmp_path):
    """Give a file of five epochs."""
    path = tmp_path / "layer-1.jsonl"
    with MetricsWriter(path) as writer:
        for epoch in range(1, 6):
            writer.write({"epoch": epoch, "error": epoch / 3, "none": float("nan")})
    return path


def epochs(path):
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("most", [0, 1, 3, 5, 9])
def test_later_lines_are_dropped(path, most):
    before = path.read_text().splitlines()[:most]
    lines = keep_until(path, "epoch", most)
    assert epochs(path) == [line["epoch"] for line in lines]
    assert path.read_text().splitlines() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("broken", ['{"epoch": 6, "err', "{", '{"epoch": 6}'])
def test_a_line_that_was_not_finished_is_dropped(path, broken):
    with path.open("a") as file:
        file.write(broken)
    assert len(keep_until(path, "epoch", 9)) == 5
    assert epochs(path) == [1, 2, 3, 4, 5]
    with MetricsWriter(path) as writer:
        writer.write({"epoch": 6})
    assert epochs(path) == [1, 2, 3, 4, 5, 6]


def test_a_missing_file_becomes_an_empty_one(tmp_path):
    path = tmp_path / "layer-1.jsonl"
    assert keep_until(path, "epoch", 3) == []
    assert path.read_text() == ""


def test_a_reader_meets_the_lines_that_follow(path):
    keep_until(path, "epoch", 2)
    reader = MetricsReader(path)
    assert [line["epoch"] for line in reader.new_lines()] == [1, 2]
    with MetricsWriter(path) as writer:
        writer.write({"epoch": 3})
    assert [line["epoch"] for line in reader.new_lines()] == [3]
