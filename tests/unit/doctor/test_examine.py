"""The course of an examination, with ranks that are joined and that are not."""

import os
import re
import sys
import threading
from types import SimpleNamespace

import pytest

from mpilayer import environment
from mpilayer.doctor import examine as doctor
from mpilayer.doctor.facts import Links, Space
from mpilayer.errors import CommunicationError
from mpilayer.parallel.comm import SerialCommunicator

MIB = 1 << 20


@pytest.fixture
def launched(monkeypatch):
    """Let a launcher have started several processes."""
    monkeypatch.setattr(environment, "launched_size", lambda: 4)


@pytest.mark.parametrize(
    ("refusal", "error", "text"),
    [
        # MPI would end them, and is not started.
        ("no. Do that.", AssertionError(), "no. Do that."),
        ("", CommunicationError("joined 1. Start it with mpiexec."), "Start it with"),
        ("", RuntimeError("cannot load MPI\nx"), "4 processes .*mpilayer\\[mpi\\]"),
    ],
)
def test_ranks_that_are_not_joined(launched, monkeypatch, refusal, error, text):
    def start():
        raise error

    monkeypatch.setattr(doctor.machine, "refusal", lambda: refusal)
    monkeypatch.setattr(doctor, "start", start)
    comm, failure = doctor.join()
    assert isinstance(comm, SerialCommunicator)
    assert "\n" not in failure
    assert re.search(text, failure)


def test_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "start", SerialCommunicator)
    monkeypatch.setattr(doctor.machine, "software", lambda mpi: mpi)
    monkeypatch.setitem(sys.modules, "mpilayer.parallel.mpi", None)
    comm, facts = doctor.examine(tmp_path, 1, pytest.fail)
    assert comm.size == facts.launch.size == len(facts.ranks) == 1
    assert (facts.software, facts.links) == (None, Links())
    assert facts.ranks[0].threads == 1
    found = facts.folder
    assert (found.path, found.seconds > 0, found.seen) == (str(tmp_path), True, ())
    assert not found.failure + found.hdf5_failure + found.lock_failure
    assert 0 <= found.space.free <= found.space.size
    assert list(tmp_path.iterdir()) == []
    door = SimpleNamespace(library=lambda: "MPICH 5")
    monkeypatch.setitem(sys.modules, "mpilayer.parallel.mpi", door)
    assert doctor.library() == "MPICH 5"


@pytest.mark.parametrize(
    ("shm", "n_ranks", "warned"),
    [
        (None, 4, False),
        (Space(64 * MIB, 64 * MIB), 4, True),
        (Space(1024 * MIB, MIB), 4, True),
        (Space(1024 * MIB, 512 * MIB), 4, False),
        (Space(MIB, MIB), 1, False),
    ],
)
def test_what_cannot_wait_for_mpi(monkeypatch, shm, n_ranks, warned):
    monkeypatch.setattr(environment, "launched_size", lambda: n_ranks)
    said = []
    doctor.warn(shm, said.append)
    assert ["--shm-size" in text for text in said] == [True] * warned


def test_a_silence_is_ended(monkeypatch):
    ended, said = threading.Event(), []
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    with doctor.patience(0.01, said.append):
        assert ended.wait(5)
    assert "firewall" in said[0]
    with doctor.patience(60, pytest.fail):
        pass


@pytest.mark.parametrize(
    ("hosts", "partners"),
    [("aa", [1]), ("aaab", [3]), ("aabbcc", [2, 4]), ("abab", [1])],
)
def test_who_is_measured(hosts, partners):
    assert doctor.partners_of(tuple(hosts)) == partners
