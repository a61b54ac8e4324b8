"""The order of an examination: the job, the ranks, their facts, then measurements."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from time import sleep

from mpilayer import environment
from mpilayer.doctor import folder, links, machine
from mpilayer.doctor.facts import Facts, Space
from mpilayer.doctor.finding import size
from mpilayer.doctor.verdicts import more_shm, shm_suffices
from mpilayer.errors import CommunicationError
from mpilayer.parallel.comm import Communicator, SerialCommunicator
from mpilayer.parallel.start import place, start

Say = Callable[[str], None]

_PATIENCE = 120.0
_HEARD_SECONDS = 0.3
_LAST_WORDS_SECONDS = 3.0
_NO_ANSWER = (
    "mpilayer: error: ranks must be able to reach one another; after {seconds:.0f} s "
    "nobody answers. See that no firewall is between the hosts, and that MPI uses a "
    "network that all have (MPICH: HYDRA_IFACE, UCX_NET_DEVICES; Open MPI: "
    "OMPI_MCA_btl_tcp_if_include)."
)


def examine(directory: Path, threads: int, say: Say) -> tuple[Communicator, Facts]:
    """Return the ranks, and what is known of them and of the directory for runs.

    Collective on the world; ranks that are not joined examine the same things, each for
    itself. BLAS ``threads`` of 0 are a rank's share of the cores; ``say`` tells the
    user what cannot wait for the report: why ranks may, or do, end.
    """
    job = machine.job()
    warn(machine.space(machine.SHM), say)
    with patience(_PATIENCE, say):
        comm, failure = join()
        placement = place(comm, threads)
        mine = machine.describe(comm.rank, placement.threads[comm.rank])
        facts = Facts(
            software=comm.on_root(lambda: machine.software(library())),
            launch=machine.launch(comm.size, failure),
            job=job,
            ranks=tuple(comm.allgather(mine)),
            folder=folder.examine(directory, comm),
            links=links.measure(comm, placement.hosts),
        )
    return comm, facts


def warn(shm: Space | None, say: Say) -> None:
    """Tell before MPI starts what may end all ranks as it does, without a word."""
    n_ranks = environment.launched_size()
    if n_ranks > 1 and shm is not None and not shm_suffices(shm, 1):
        say(
            f"warning: /dev/shm has {size(shm.size)}, {size(shm.free)} free: should "
            f"MPI crash as it starts, that is why. {more_shm('')}"
        )


def join() -> tuple[Communicator, str]:
    """Return all ranks, or this one alone and why they cannot be joined."""
    if refusal := machine.refusal():
        return SerialCommunicator(), refusal
    try:
        return start(), ""
    except CommunicationError as error:
        return SerialCommunicator(), str(error)
    except RuntimeError as error:
        # So mpi4py says that it cannot load its library.
        text = (
            f"{environment.launched_size()} processes were started together, which "
            f"needs an MPI library; mpi4py finds none ({error}). Load your cluster's "
            "MPI module, or install mpilayer[mpi]."
        )
        return SerialCommunicator(), " ".join(text.split())


def library() -> str | None:
    """Return the MPI library that this process has loaded, None if it has none."""
    mpi = sys.modules.get("mpilayer.parallel.mpi")
    return None if mpi is None else str(mpi.library())


@contextmanager
def patience(seconds: float, say: Say) -> Iterator[None]:
    """End this process, with a word, if the block takes too long.

    A rank that waits for others cannot be told that there is nobody; the launcher ends
    the others.
    """

    def give_up() -> None:
        say(_NO_ANSWER.format(seconds=seconds))
        # When one rank ends, the launcher may end the others and drop their words.
        first = environment.launched_rank() == 0
        sleep(_HEARD_SECONDS if first else _LAST_WORDS_SECONDS)
        if mpi := sys.modules.get("mpilayer.parallel.mpi"):
            mpi.say_farewell()
        os._exit(1)

    timer = Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
