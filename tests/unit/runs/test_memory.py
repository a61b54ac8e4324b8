"""Rows in files, as a run: interrupted anywhere, its settings, what it leaves."""

from dataclasses import replace

import numpy as np
import pytest

from mpilayer.errors import ConfigError, DataError
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import resume
from tests.support.runs import pretrain, run_finetune
from tests.support.small import write_pixels
from tests.unit.runs.conftest import (
    STACK,
    TUNE,
    digests,
    make_session,
    stopped,
    tuned_weights,
)

FAR = replace(STACK, memory="9K")
TUNE_FAR = replace(TUNE, epochs=3, memory="4K")


@pytest.fixture
def data(tmp_path):
    """Give a data set that is larger than that."""
    return write_pixels(tmp_path / "data.h5")


@pytest.mark.parametrize("schedule", ["lockstep", "greedy"])
@pytest.mark.parametrize("limit", [1, 3, 5, 7])
def test_interrupted_anywhere_it_is_the_same(tmp_path, data, schedule, limit):
    config, whole = replace(FAR, epochs=(3,), schedule=schedule), make_session()
    pretrain(data, tmp_path / "whole", config, whole)
    assert any("read in chunks, 9K" in words for words in whole.said)
    run = tmp_path / "run"
    stopped(limit, pretrain, data, run, config)
    assert not RunDirectory(run).scratch.exists()
    (RunDirectory(run).scratch / "left by one that was killed").mkdir(parents=True)
    resume(run, make_session())
    assert digests(run) == digests(tmp_path / "whole")
    assert not RunDirectory(run).scratch.exists()
    pretrain(data, tmp_path / "all", replace(config, memory="all"), make_session())
    assert digests(run) != digests(tmp_path / "all")


def test_fine_tuning_goes_on_in_its_order(tmp_path, data):
    weights = []
    for run in (tmp_path / "whole", tmp_path / "run"):
        pretrain(data, run, STACK, make_session())
        if run.name == "run":
            stopped(1, run_finetune, run, TUNE_FAR)
            resume(run, make_session())
        else:
            run_finetune(run, TUNE_FAR, make_session())
        weights.append(tuned_weights(run))
    np.testing.assert_equal(*weights)


def test_the_memory_of_a_run_is_kept(tmp_path, data):
    run = tmp_path / "run"
    stopped(2, pretrain, data, run, FAR)
    assert RunDirectory(run).section("pretrain")["memory"] == "9K"
    for given in ("all", "1G"):
        with pytest.raises(ConfigError, match=f"--memory was 9K, is {given}"):
            pretrain(data, run, replace(FAR, memory=given), make_session(resume=True))
    pretrain(data, run, STACK, make_session(resume=True))
    assert RunDirectory(run).section("pretrain")["memory"] == "9K"


def test_what_fits_stays_in_memory(tmp_path, data):
    """To the bit; and so it is without a word."""
    for name, memory in (("auto", "auto"), ("large", "1G")):
        session = make_session()
        pretrain(data, tmp_path / name, replace(STACK, memory=memory), session)
        assert not any("chunks" in words for words in session.said)
    assert digests(tmp_path / "auto") == digests(tmp_path / "large")
    assert RunDirectory(tmp_path / "auto").section("pretrain")["memory"] == "all"


def test_too_little_is_refused_before_anything_is_written(tmp_path, data):
    with pytest.raises(ConfigError, match=r"outputs of layer 1; that is 9K, and 8K"):
        pretrain(data, tmp_path / "run", replace(STACK, memory="8K"), make_session())
    assert not (tmp_path / "run").exists()
    pretrain(data, tmp_path / "run", STACK, make_session())
    with pytest.raises(ConfigError, match=r"for the rows; that is 4K, and 1K are giv"):
        run_finetune(tmp_path / "run", replace(TUNE, memory="1K"), make_session())


def test_a_disk_without_room(tmp_path, data, monkeypatch):
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("mpilayer.far.shutil.disk_usage", lambda _: full)
    with pytest.raises(DataError, match="must have room for what layers pass on"):
        pretrain(data, tmp_path / "run", FAR, make_session())
    assert not (tmp_path / "run").exists()
