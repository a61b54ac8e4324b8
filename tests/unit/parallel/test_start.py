"""How ranks start, and what share of the cores each gets."""

import importlib
import os
import re
import sys
from types import SimpleNamespace

import pytest

from mpilayer import environment
from mpilayer.errors import CommunicationError
from mpilayer.parallel import start
from mpilayer.parallel.comm import SerialCommunicator


class Fake(SerialCommunicator):
    """A rank among others on known cores."""

    def __init__(self, everyone, rank):
        self.everyone = [(host, frozenset(cores)) for host, cores in everyone]
        self.rank, self.size = rank, len(everyone)

    def allgather(self, item):
        return self.everyone


@pytest.fixture
def limits(monkeypatch):
    """Give the list of BLAS limits that were set; there is no request."""
    found = []
    monkeypatch.setattr(start, "threadpool_limits", lambda limits: found.append(limits))
    monkeypatch.setattr(environment, "_requested", 0)
    return found


ALL = range(4)
PLACES = [
    ([("a", ALL)], (4,), ""),
    ([("a", ALL)] * 2, (2, 2), ""),
    ([("a", ALL)] * 3, (1, 1, 1), ""),
    # Here six thirds fall short of two in floating point.
    ([("a", range(6))] * 3, (2,) * 3, ""),
    ([("a", ALL)] * 4, (1, 1, 1, 1), ""),
    ([("a", ALL)] * 5, (1,) * 5, "5 BLAS threads .*4 cores of a"),
    ([("a", ALL), ("b", range(2))], (4, 2), ""),
    # Bound to cores of their own, to one, and to some in common.
    ([("a", {0, 1}), ("a", {2}), ("a", {3})], (2, 1, 1), ""),
    ([("a", {0})] * 2, (1, 1), "2 BLAS threads .*1 cores of a"),
    ([("a", {0, 1, 2}), ("a", {2, 3})], (2, 1), ""),
    ([("a", ALL), ("b", {0}), ("b", {0})], (4, 1, 1), "1 cores of b"),
]


@pytest.mark.parametrize(("everyone", "threads", "crowded"), PLACES)
def test_shares(limits, everyone, threads, crowded):
    for rank in range(len(everyone)):
        placement = start.place(Fake(everyone, rank))
        assert placement.threads == threads
        assert placement.hosts == tuple(host for host, _ in everyone)
        assert bool(placement.crowded) == bool(crowded)
        assert re.search(crowded, placement.crowded)
    assert limits == list(threads)


@pytest.mark.parametrize(
    ("asked", "requested", "found"), [(3, 0, 3), (0, 2, 2), (3, 2, 3)]
)
def test_what_the_user_asks_for_counts(limits, monkeypatch, asked, requested, found):
    monkeypatch.setattr(environment, "_requested", requested)
    placement = start.place(Fake([("a", ALL)] * 2, 1), asked)
    assert placement.threads == (found, found)
    assert limits == [found]
    assert bool(placement.crowded) == (2 * found > 4)


def test_description():
    for hosts, threads, expected in (
        ("a", (1,), "1 rank on 1 host, 1 BLAS thread each, MPI: none"),
        ("aa", (2, 2), "2 ranks on 1 host, 2 BLAS threads each, MPI: none"),
        ("ab", (4, 2), "2 ranks on 2 hosts, 2-4 BLAS threads each, MPI: none"),
    ):
        assert start.Placement((*hosts,), threads, "", "none").describe() == expected


@pytest.fixture
def variables(monkeypatch):
    """Give an environment without a launcher."""
    names = [n for n in os.environ if not n.startswith(("PMI", "OMPI_", "SLURM_"))]
    found = {name: os.environ[name] for name in names}
    monkeypatch.setattr(os, "environ", found)
    return found


@pytest.fixture
def door(monkeypatch):
    """Give a function that puts something in the place of the door to mpi4py."""

    def put(module):
        monkeypatch.delattr("mpilayer.parallel.mpi", raising=False)
        monkeypatch.setitem(sys.modules, "mpilayer.parallel.mpi", module)

    return put


def test_one_process_never_loads_mpi(variables, door):
    door(None)
    comm = start.start()
    assert isinstance(comm, SerialCommunicator)
    assert start.place(comm, 1).library == "none"


def test_launched_together_they_join(variables, door):
    variables |= {"PMI_RANK": "0", "PMI_SIZE": "3"}
    world = object()
    door(SimpleNamespace(world=lambda failure: world))
    assert start.start() is world


def test_without_mpi4py(variables, monkeypatch):
    variables |= {"PMI_RANK": "0", "PMI_SIZE": "3"}
    monkeypatch.delitem(sys.modules, "mpilayer.parallel.mpi", raising=False)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(CommunicationError, match=r"3 processes .*mpilayer\[mpi\]"):
        importlib.import_module("mpilayer.parallel.mpi")
