"""A run goes on with the BLAS threads that it has; who asks for others is refused."""

from dataclasses import replace

import pytest

from mpilayer.errors import ConfigError
from mpilayer.interrupt import Interrupted
from mpilayer.parallel.start import Placement
from mpilayer.runs import session
from mpilayer.runs.directory import RunDirectory
from mpilayer.runs.drive import resume, training_of
from tests.support.runs import pretrain, run_finetune
from tests.unit.runs.conftest import SPARSE, STACK, TUNE, make_session, stopped

CONFIGS = {"pretrain": STACK, "sparse": SPARSE, "compare": SPARSE}


@pytest.fixture(autouse=True)
def placed(monkeypatch):
    """Give the threads with which ranks were placed, which they are not really."""
    found = []

    def place(comm, threads):
        found.append(threads)
        return Placement(("here",), threads, "", "none")

    monkeypatch.setattr(session, "place", place)
    return found


def asking(threads, *limit, **safety):
    """Return a session of a user who asks for threads."""
    return replace(make_session(*limit, **safety), threads=threads)


@pytest.mark.parametrize("command", CONFIGS)
def test_a_run_keeps_its_threads(small, tmp_path, placed, command):
    run, config = tmp_path / "run", CONFIGS[command]
    with pytest.raises(Interrupted):
        training_of(command)(run, asking(3, 2), config, small).drive()
    assert placed == [3]
    with pytest.raises(ConfigError, match="--threads was 3, is 2"):
        resume(run, asking(2))
    again = training_of(command)(run, asking(2, resume=True), config, small)
    with pytest.raises(ConfigError, match="--threads was 3, is 2"):
        again.drive()
    assert placed == [3]
    resume(run, asking(0))
    assert placed == [3, 3]
    assert RunDirectory(run).read_config()["launch"][f"{command}_threads"] == 3


def test_fine_tuning_has_its_own(run, placed):
    with pytest.raises(Interrupted):
        run_finetune(run, replace(TUNE, epochs=4), asking(2, 1))
    launch = RunDirectory(run).read_config()["launch"]
    assert (launch["pretrain_threads"], launch["finetune_threads"]) == (1, 2)
    resume(run, asking(0))
    assert placed == [2, 2]


@pytest.mark.parametrize(("asked", "expected"), [(0, []), (2, [2])])
def test_a_run_that_noted_none_goes_on_as_asked(
    small, tmp_path, placed, asked, expected
):
    run = tmp_path / "run"
    stopped(2, pretrain, small, run, STACK)
    RunDirectory(run).write_config({"launch": {}})
    resume(run, asking(asked))
    assert placed == expected
