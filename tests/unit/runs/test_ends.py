"""When an epoch ended: the moving of messages included, wherever that is shown."""

from dataclasses import asdict

import pytest

from mpilayer.cli.view import progress
from mpilayer.config import PretrainConfig
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.outcome import stack_over_time
from mpilayer.store.metrics import MetricsReader
from mpilayer.train.layer import layer_shapes
from mpilayer.train.record import EpochRecord, end_of


def epochs(n):
    """Return epochs of 4 seconds, of which messages take 2.5, after 0.5 of waiting."""
    times = {"training": 1.0, "transform": 0.25, "monitor": 0.25, "sending": 2.5}
    times |= {"waiting": 0.5, "train_error": 1.0, "validation_error": 1.0}
    return [
        EpochRecord(layer=0, epoch=epoch, used=0, started=4.5 * epoch - 4, **times)
        for epoch in range(1, n + 1)
    ]


def test_of_a_record_of_its_line_and_in_the_monitor():
    for number, record in enumerate(epochs(3), start=1):
        assert record.ended == end_of(asdict(record)) == 4.5 * number
        assert sum(record.seconds.values()) == 4.5
    lines = [asdict(record) for record in epochs(3)]
    assert progress(lines[:1], 2).left == 4.0
    assert progress(lines, 5).rate(60) == pytest.approx(60 / 4.5)


def test_in_the_errors_of_the_stack_over_time(small, tmp_path):
    config = PretrainConfig(layers=(5,), epochs=(3,), minibatch=10, monitor_every=1)
    directory = RunDirectory(tmp_path / "run")
    directory.create(replace=False)
    shapes, comm = layer_shapes(config, 12), SerialCommunicator()
    stack_over_time(directory, small, config, shapes, [epochs(3)], comm)
    lines = MetricsReader(directory.metrics_file("stack")).new_lines()
    assert [line["seconds"] for line in lines] == [4.5, 9.0, 13.5]
