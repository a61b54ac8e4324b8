"""How ranks start, and what is seen of where they are."""

import importlib
import os
import re
import sys
from types import SimpleNamespace

import pytest

from mpilayer.errors import CommunicationError
from mpilayer.parallel import start
from mpilayer.parallel.comm import SerialCommunicator


class Fake(SerialCommunicator):
    """A rank among others, each on a host, on known cores, with BLAS kernels."""

    def __init__(self, everyone, rank=0):
        self.seats = [
            start._Seat(host, frozenset(cores), frozenset(cores), *[*kernels, "x"][:1])
            for host, cores, *kernels in everyone
        ]
        self.rank, self.size = rank, len(everyone)

    def allgather(self, item):
        return self.seats


@pytest.fixture
def blas(monkeypatch):
    """Give the threads that were set, and what is found of libraries."""
    found = SimpleNamespace(threads=[], info=[])

    class Libraries:
        def limit(self, limits):
            found.threads.append(limits)

        def select(self, user_api):
            return SimpleNamespace(info=lambda: found.info)

    monkeypatch.setattr(start, "ThreadpoolController", Libraries)
    return found


ALL = range(4)


@pytest.mark.parametrize(
    ("everyone", "threads", "crowded"),
    [
        ([("a", ALL)], 1, ""),
        ([("a", ALL)], 4, ""),
        ([("a", ALL)] * 2, 2, ""),
        ([("a", ALL)] * 2, 3, "6 BLAS threads .*4 cores of a"),
        ([("a", ALL)] * 5, 1, "5 BLAS threads .*4 cores of a"),
        ([("a", ALL), ("b", range(2))], 3, "3 BLAS threads .*2 cores of b"),
        # Bound to cores of their own, to one, and to some in common.
        ([("a", {0, 1}), ("a", {2}), ("a", {3})], 1, ""),
        ([("a", {0})] * 2, 1, "2 BLAS threads .*1 cores of a"),
        ([("a", {0, 1, 2}), ("a", {2, 3})], 2, ""),
        ([("a", ALL), ("b", {0}), ("b", {0})], 1, "1 cores of b"),
    ],
)
def test_threads_are_those_asked_for(blas, everyone, threads, crowded):
    for rank in range(len(everyone)):
        placement = start.place(Fake(everyone, rank), threads)
        assert placement.threads == threads
        assert placement.hosts == tuple(host for host, _ in everyone)
        assert bool(placement.crowded) == bool(crowded)
        assert re.search(crowded, placement.crowded)
    assert blas.threads == [threads] * len(everyone)


@pytest.mark.parametrize(
    ("everyone", "told"),
    [
        ([("a", ALL, "K1"), ("a", ALL, "K1"), ("b", ALL, "K1")], ()),
        (
            [("a", ALL, "K1"), ("b", ALL, "K2"), ("c", ALL, "K2")],
            ("K1 on a", "K2 on b"),
        ),
        ([("a", ALL, "K1"), ("a", ALL, "K2")], ("K1 on a", "K2 on a")),
    ],
)
def test_kernels_that_round_differently_are_told(blas, everyone, told):
    mixed = start.place(Fake(everyone)).mixed
    assert bool(mixed) == bool(told)
    assert all(words in mixed for words in told)


def library(path, architecture):
    """Return what threadpoolctl says of an OpenBLAS."""
    named = {"internal_api": "openblas", "version": "0.3", "filepath": path}
    return {**named, "architecture": architecture}


@pytest.mark.parametrize(
    ("libraries", "kernels"),
    [
        ([], ""),
        ([library("/usr/lib/libblas.so", "Zen")], "openblas 0.3 Zen"),
        # SciPy's is not asked: it may be loaded on some of the ranks.
        (
            [
                library("/numpy.libs/a.so", "Zen"),
                library("/scipy.libs/b.so", "Haswell"),
            ],
            "openblas 0.3 Zen",
        ),
    ],
)
def test_kernels_are_those_of_numpy(blas, monkeypatch, libraries, kernels):
    sent = []
    comm = Fake([("a", ALL)])
    monkeypatch.setattr(comm, "allgather", lambda item: sent.append(item) or comm.seats)
    blas.info = libraries
    start.place(comm)
    assert sent[0].kernels == kernels


@pytest.mark.parametrize(
    ("hosts", "threads", "cores", "useful", "told"),
    [
        ("a", 1, 1, 9, "1 rank on 1 host, 1 BLAS thread each, MPI: none"),
        ("aa", 2, 4, 9, "2 ranks on 1 host, 2 BLAS threads each, MPI: none"),
        ("aa", 1, 8, 26, "MPI: none; 6 of 8 cores idle: mpiexec -n 8"),
        ("aa", 2, 8, 26, "MPI: none; 4 of 8 cores idle: mpiexec -n 4"),
        # No more ranks than have work.
        ("a", 1, 8, 3, "MPI: none; 7 of 8 cores idle: mpiexec -n 3"),
        ("ab", 1, 8, 2, "2 ranks on 2 hosts, 1 BLAS thread each, MPI: none"),
        ("a", 1, 8, 0, "1 rank on 1 host, 1 BLAS thread each, MPI: none"),
        ("aaa", 1, 2, 9, "3 ranks on 1 host, 1 BLAS thread each, MPI: none"),
        ("a", 3, 5, 9, "1 rank on 1 host, 3 BLAS threads each, MPI: none"),
    ],
)
def test_description(hosts, threads, cores, useful, told):
    placement = start.Placement((*hosts,), threads, "", "none", cores)
    assert placement.describe(useful).endswith(told)


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
