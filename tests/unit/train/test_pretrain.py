"""Plans and the pipeline, on one rank."""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from mpilayer.parallel.channel import Rows
from mpilayer.parallel.comm import SerialCommunicator
from mpilayer.train.layer import monitored_error
from mpilayer.train.plans import TablePlan
from mpilayer.train.schedule import greedy, lockstep
from tests.support import pipeline
from tests.support.pipeline import (
    CONFIG,
    EPOCHS,
    FOUR,
    TABLES,
    Memory,
    async_plan,
    data,
    each_epoch,
    new_states,
)

SERIAL = SerialCommunicator()
train = partial(pipeline.train, SERIAL)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", TABLES)
def test_tables_are_followed(name, streamed):
    table = TABLES[name]
    table.check()
    outcome = train(TablePlan(table, streamed))
    assert outcome.used == table.used
    assert outcome.dropped == [()] * 4
    assert train(TablePlan(table, streamed)).digests == outcome.digests


@pytest.mark.parametrize("method", ["rbm", "autoencoder"])
def test_greedy_is_layer_after_layer_by_hand(method):
    config = replace(CONFIG, method=method)
    rows, digests = data(), []
    for state in new_states(config):
        for _ in range(EPOCHS):
            state.train_epoch(rows.train)
        rows = Rows(*map(state.layer.encode, rows.parts))
        digests.append(state.layer.parameters.digest())
    found = train(TablePlan(greedy(FOUR, (0,) * 4), True), config=config)
    assert found.digests == digests


def test_streaming_ends_with_the_stipulated_epochs():
    def digests(table):
        return [train(TablePlan(table, streamed)).digests for streamed in (True, False)]

    # Only outputs after a layer's N-th epoch are used: they are transformed anyway.
    one, other = digests(TABLES["greedy"])
    assert one == other
    one, other = digests(TABLES["lockstep"])
    assert one[0] == other[0]
    assert all(a != b for a, b in zip(one[1:], other[1:], strict=True))


@pytest.mark.parametrize("streamed", [True, False])
def test_outputs_by_hand(streamed):
    """What layer 2 sees is what layer 1 hid: on the way, or at the end of the epoch."""
    met = []

    def watch(state, rows):
        if state.index == 1:
            met.append(rows.copy())

    plan = TablePlan(lockstep(FOUR, (2, 0, 0, 0)), streamed)
    train(plan, prepare=each_epoch(watch))
    rows, state = data().train, new_states()[0]
    for epoch, found in enumerate(met, start=1):
        on_the_way = np.empty_like(found)
        state.train_epoch(rows, on_the_way)
        is_streamed = streamed and epoch < EPOCHS
        expected = on_the_way if is_streamed else state.layer.encode(rows)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("streamed", [True, False])
def test_errors_by_hand(streamed):
    """A layer's errors are those on its own inputs, made by the layer below.

    With the weights at the end of its epoch, whatever it was trained on: else streamed
    training rows, of the whole epoch's weights, would show a gap to validation rows.
    """
    found = train(TablePlan(lockstep(FOUR, (0,) * 4), streamed)).records[1]
    rows, (lower, upper) = data(), new_states()[:2]
    for epoch, record in enumerate(found, start=1):
        hidden = np.empty((90, 9), np.float32)
        lower.train_epoch(rows.train, hidden)
        if not streamed or epoch == EPOCHS:
            hidden = lower.layer.encode(rows.train)
        upper.train_epoch(hidden)
        sample, validation = map(lower.layer.encode, (rows.sample, rows.validation))
        assert record.train_error == monitored_error(upper.layer, sample)
        assert record.validation_error == monitored_error(upper.layer, validation)


def test_one_rank_interleaves_its_layers():
    """The layer furthest behind goes first, so nobody is far ahead."""
    done = []
    note = each_epoch(lambda state, _: done.append(state.index))
    train(TablePlan(lockstep(FOUR, (0,) * 4), True), prepare=note)
    assert done == [0, 1, 2, 3] * EPOCHS


def test_records():
    records = train(TablePlan(TABLES["lockstep"], True)).records
    for layer, rows in enumerate(records):
        assert [(r.layer, r.epoch) for r in rows] == [
            (layer, epoch) for epoch in range(1, len(rows) + 1)
        ]
        assert [r.started for r in rows] == sorted(r.started for r in rows)
        for r in rows:
            assert min(r.seconds.values()) > -1e-6
            assert r.training > 0
            assert min(r.train_error, r.validation_error) > 0
            assert max(r.train_error, r.validation_error) < 12
            # The last layer's outputs go nowhere.
            assert (r.transform > 0) == (layer == 0) or 0 < layer < 3
    assert records[0][-1].train_error < records[0][0].train_error


def test_saving_is_no_kind_of_seconds(monkeypatch):
    """What a layer waits for are inputs, and room for outputs."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    class Slow(Memory):
        def save(self, state, snapshot):
            clock[0] += 1.0
            super().save(state, snapshot)

    keeper = Slow(1)
    records = train(TablePlan(TABLES["lockstep"], True), keeper).records
    assert clock[0] > len(records)
    assert {s for row in records for r in row for s in r.seconds.values()} == {0.0}


def test_without_validation_rows_and_a_single_layer():
    plan = partial(TablePlan, TABLES["lockstep"], True)
    without = train(plan(), rows=data(90, 0))
    assert without.digests == train(plan()).digests
    assert all(np.isnan(r.validation_error) for row in without.records for r in row)
    config, table = replace(CONFIG, layers=(5,)), lockstep((3,), (1,))
    assert train(TablePlan(table, True), config=config).used == ((0,) * 4,)


def test_the_data_stay_as_they_are():
    rows = data()
    train(async_plan(), rows=rows)
    for part, expected in zip(rows.parts, data().parts, strict=True):
        np.testing.assert_array_equal(part, expected)
