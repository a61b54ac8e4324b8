"""The door to mpi4py: starts MPI, wraps its calls, ends all ranks on a defect.

MPICH's launcher does not notice a process that exits before MPI has joined it to the
others, and MPI itself waits for it for ever. So the ranks of a host first meet: each
opens a door that has its process's number, and waits for those of its siblings. If one
is gone, all ranks end. Other launchers notice by themselves.
"""

import atexit
import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from mpilayer import ending, environment
from mpilayer.arrays import AnyArray
from mpilayer.errors import CommunicationError, MpilayerError
from mpilayer.parallel import sentinel
from mpilayer.parallel.comm import Communicator, Request, SharedMemory, wait_until

try:
    import mpi4py

    # Loading the library may fail, and shall not join the ranks yet.
    mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
    from mpi4py import MPI
except ImportError as error:
    raise CommunicationError(
        f"{environment.launched_size()} processes were started together, which needs "
        f"mpi4py and an MPI library; found none ({error}). Install mpilayer[mpi], or "
        "start one process."
    ) from error

T = TypeVar("T")

_LAUNCHER = "hydra_pmi_proxy"
_PAUSE = 0.02
# The launcher may be busy starting siblings.
_MISSING_SECONDS = 2.0
# Whoever does not come in this time is another program, which has no door.
_PATIENCE = 60.0


class _Request:
    def __init__(self, request: MPI.Request) -> None:
        self._request = request

    def test(self) -> bool:
        return bool(self._request.Test())


class MPICommunicator(Communicator):
    """A communicator of MPI."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self._comm = comm
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self.library = library()

    def allgather(self, item: Any) -> list[Any]:
        """Return every rank's object."""
        mine = np.frombuffer(pickle.dumps(item), np.uint8)
        sizes = np.zeros(self.size, np.int64)
        wait_until(self._comm.Iallgather(np.array([len(mine)], np.int64), sizes).Test)
        everything = np.empty(int(sizes.sum()), np.uint8)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        layout = [everything, (sizes, starts[:-1]), MPI.BYTE]
        wait_until(self._comm.Iallgatherv([mine, MPI.BYTE], layout).Test)
        return [pickle.loads(everything[a:b].tobytes()) for a, b in pairwise(starts)]

    def start_sum(self, array: AnyArray) -> Request:
        """Start adding an array over all ranks, in place."""
        return _Request(self._comm.Iallreduce(MPI.IN_PLACE, array, MPI.SUM))

    def start_max(self, array: AnyArray) -> Request:
        """Start to find the largest of all ranks, in place."""
        return _Request(self._comm.Iallreduce(MPI.IN_PLACE, array, MPI.MAX))

    def start_send(
        self, array: AnyArray, destination: int, tag: int, synchronous: bool = False
    ) -> Request:
        """Start sending a contiguous array."""
        send = self._comm.Issend if synchronous else self._comm.Isend
        return _Request(send(array, destination, tag))

    def start_receive(self, array: AnyArray, source: int, tag: int) -> Request:
        """Start receiving into a contiguous array."""
        return _Request(self._comm.Irecv(array, source, tag))

    def barrier(self) -> None:
        """Wait for all ranks."""
        wait_until(self._comm.Ibarrier().Test)

    def broadcast(self, item: T, meanwhile: Callable[[], object] = lambda: None) -> T:
        """Return rank 0's object everywhere."""
        payload = np.frombuffer(pickle.dumps(item), np.uint8)
        size = np.array([len(payload)], np.int64)
        self._await(self._comm.Ibcast(size, 0), meanwhile)
        buffer = payload if self.rank == 0 else np.empty(int(size[0]), np.uint8)
        self._await(self._comm.Ibcast([buffer, MPI.BYTE], 0), meanwhile)
        return item if self.rank == 0 else pickle.loads(buffer.tobytes())

    def split(self, colour: int, key: int = 0) -> "MPICommunicator":
        """Return the ranks with this rank's colour, by key and rank."""
        part = self._comm.Split(colour, key)
        return MPICommunicator(cast(MPI.Intracomm, part))

    def free(self) -> None:
        """Give it back."""
        self._comm.Free()

    def neighbours(self) -> int:
        """Return how many ranks can share memory with this one, it included."""
        part = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        size = part.Get_size()
        part.Free()
        return size

    def shared_memory(self) -> SharedMemory:
        """Return what allocates MPI-3 windows, where there is somebody to share."""
        return _Windows(self._comm) if self.size > 1 else SharedMemory()

    @staticmethod
    def _await(request: MPI.Request, meanwhile: Callable[[], object]) -> None:
        def done() -> bool:
            meanwhile()
            return bool(request.Test())

        wait_until(done)


class _Windows(SharedMemory):
    """Windows of MPI-3, each one the first rank's, which the others look into."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self._comm = comm
        self._windows: list[MPI.Win] = []

    def allocate(self, n_bytes: int) -> Any:
        mine = n_bytes if self._comm.Get_rank() == 0 else 0
        window = MPI.Win.Allocate_shared(max(mine, 1), 1, comm=self._comm)
        # For the fences: one access epoch for all the time.
        window.Lock_all(MPI.MODE_NOCHECK)
        self._windows.append(window)
        content, _ = window.Shared_query(0)
        array = np.asarray(content)[:n_bytes]
        if self._comm.Get_rank() == 0:
            array[:] = 0
        wait_until(self._comm.Ibarrier().Test)
        return array

    def barrier(self) -> Request:
        if self._windows:
            self._windows[0].Sync()
        return _Request(self._comm.Ibarrier())

    def fence(self) -> None:
        if self._windows:
            self._windows[0].Sync()

    def free(self) -> None:
        while self._windows:
            window = self._windows.pop()
            window.Unlock_all()
            window.Free()


def world(failure: MpilayerError | None = None) -> MPICommunicator:
    """Return all ranks, as ``start`` does. Collective, also where there is a failure.

    From now on an unexpected exception on one rank ends them all.
    """
    ending.share_fate(environment.launched_rank())
    if not MPI.Is_initialized():
        # Where there is no network for UCX, Open MPI 5 says so at every window; those
        # that the ranks of a host share need none.
        os.environ.setdefault("OMPI_MCA_osc", "^ucx")
        with _met():
            MPI.Init_thread(MPI.THREAD_FUNNELED)  # one thread a rank calls MPI
    comm = MPICommunicator(MPI.COMM_WORLD.Dup())
    launched = environment.launched_size()
    if launched != comm.size:
        raise CommunicationError(_wrong_world(launched, comm.size))
    if comm.size > 1:
        ending.share_fate(comm.rank, abort)
        failures = [one for one in comm.allgather(failure) if one is not None]
        if failures:
            raise failures[0].of_all_ranks()
        _watch(comm)
    return comm


def library() -> str:
    """Return the name and version of the MPI library."""
    return environment.mpi_name(MPI.Get_library_version())


def abort(code: int) -> None:
    """End all ranks at once, while MPI is running."""
    if not MPI.Is_finalized():
        say_farewell()
        MPI.COMM_WORLD.Abort(code)


_watched: sentinel.Watched | None = None


def _watch(comm: MPICommunicator) -> None:
    """Let a process of each host watch over its ranks. Collective."""
    global _watched
    if not sys.platform.startswith("linux"):
        return
    host = socket.gethostname()
    first = comm.allgather(host).index(host)
    name = ""
    with suppress(OSError):  # without it, only the name of a dead rank is missing
        name = sentinel.start(host) if first == comm.rank else ""
    name = comm.allgather(name)[first]
    with suppress(OSError):
        if name:
            _watched = sentinel.watch(name, comm.rank, lambda: ending.end_all(1))
            atexit.register(say_farewell)


def name_run(run: str) -> None:
    """Tell the sentinel in which run this rank is at work; empty: in none. Local."""
    if _watched is not None:
        _watched.name_run(run)


def say_farewell() -> None:
    """Tell the sentinel that this rank ends by itself. Local."""
    if _watched is not None:
        _watched.say_farewell()


def _wrong_world(launched: int, size: int) -> str:
    variables = environment.launcher_variables()
    listing = ", ".join(f"{name}={value}" for name, value in variables.items())
    advice = (
        "Start it with the mpiexec of that library"
        if "SLURM_STEP_NUM_TASKS" not in variables or "PMI_SIZE" in variables
        else "Start it with mpiexec, or with srun --mpi=pmi2 (MPICH, Intel MPI) or "
        "srun --mpi=pmix (Open MPI)"
    )
    return (
        f"the launcher started {launched} processes together, but MPI ({library()}) "
        f"joined {size}: every process would be alone and overwrite the others' files. "
        f"{advice}. ({listing})"
    )


@contextmanager
def _met() -> Iterator[None]:
    """Begin the block when all siblings have come to it, or end all. Collective."""
    parent, expected = os.getppid(), os.environ.get("MPI_LOCALNRANKS", "")
    name = environment.read(Path(f"/proc/{parent}/comm")).strip()
    if not expected.isdigit() or name != _LAUNCHER:
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        with suppress(OSError):  # somebody has taken the name: it only takes longer
            door.bind(_address(os.getpid()))
            door.listen(1024)
        _wait_for_all(parent, int(expected))
        yield


def _wait_for_all(parent: int, expected: int) -> None:
    complete = began = time.monotonic()
    while (now := time.monotonic()) < began + _PATIENCE:
        alive = _children(parent)
        if os.getpid() not in alive:
            return  # this system does not tell
        if len(alive) >= expected:
            complete = now
            if all(map(_is_open, alive)):
                return
        elif now > complete + _MISSING_SECONDS and os.getpid() == min(alive):
            ending.say(
                f"mpilayer: {expected - len(alive)} of {expected} processes of this "
                "host ended before MPI joined the ranks; ending all ranks. What they "
                "have printed may say why.\n"
            )
            ending.end_all(1)
        time.sleep(_PAUSE)


def _children(pid: int) -> list[int]:
    found = environment.read(Path(f"/proc/{pid}/task/{pid}/children")).split()
    return [child for child in map(int, found) if sentinel.lives(child)]


def _address(pid: int) -> str:
    return f"\0mpilayer-joins-{pid}"


def _is_open(pid: int) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        visitor.setblocking(False)
        try:
            visitor.connect(_address(pid))
        except BlockingIOError:
            return True  # so many have come already
        except OSError:
            return False
    return True
