"""Starts mpilayer as users do: under a launcher or not; or carries it out here."""

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest
from threadpoolctl import threadpool_limits

from mpilayer.environment import mpiexec

ROOT = Path(__file__).parents[2]
MODULE = ("-m", "mpilayer")
LIMIT = 120.0
"""Seconds after which a launch is ended, if the test says nothing else."""

_STYLES = re.compile(r"\x1b\[[0-9;]*m")
# What launchers and schedulers tell their processes: pytest may itself run in a job.
# Where the controller is, they may know.
_FOREIGN = ("PMI_", "PMIX_", "OMPI_COMM_", "MPI_LOCAL", "HYDI_", "SLURM_", "MPILAYER_")
_KEPT = "SLURM_CONF"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)

_DRIVER = """
import os, sys, time
from mpilayer import environment

environment.prepare()
rank = environment.launched_rank()
{change}
from mpilayer.__main__ import main

code = main()
sys.stdout.flush()
raise SystemExit(code)
"""


@dataclass(frozen=True)
class Result:
    """How a launch ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    def ok(self):
        """Demand success; return the result."""
        assert self.code == 0, self
        return self

    def __str__(self):
        return (
            f"code {self.code} after {self.seconds:.1f} s\n"
            f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
        )


class Job:
    """A launch under way, a process group of its own, and for how many seconds."""

    def __init__(self, process: subprocess.Popen[str], limit: float) -> None:
        self._process, self._limit = process, limit
        self._began = time.monotonic()

    @property
    def lives(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def wait_for(self, path: Path, lines: int = 0) -> None:
        """Wait until a file is there and not empty, and has so many lines."""
        while not (content := path.is_file() and path.read_bytes()) or (
            content.count(b"\n") < lines
        ):
            if not self.lives:
                pytest.fail(f"ended before {path.name} was there:\n{self.finish()}")
            if self._seconds > self._limit:
                pytest.fail(f"no {path.name} within {self._limit} s")
            time.sleep(0.02)

    def signal(self, number: int, group: bool = False) -> None:
        """Send a signal to the process, or as a terminal does to its whole group."""
        (os.killpg if group else os.kill)(self._process.pid, number)

    def finish(self) -> Result:
        """Wait for the end; fail, and end the whole group, when the limit is over."""
        late = False
        try:
            left = max(self._limit - self._seconds, 0.1)
            stdout, stderr = self._process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            late = True
            self.end()
            stdout, stderr = self._process.communicate(timeout=10)
        # Open MPI's ranks write to a terminal of its own, in colours.
        stdout = _STYLES.sub("", stdout)
        result = Result(self._process.returncode, stdout, stderr, self._seconds)
        assert not late, f"not done within {self._limit} s\n{result}"
        return result

    def end(self) -> None:
        """End the group: the launcher gets a moment to end its ranks elsewhere."""
        for number, seconds in ((signal.SIGTERM, 2), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self._process.pid, number)
                self._process.wait(seconds)


@contextmanager
def started(
    *arguments: object,
    ranks: int | Sequence[Sequence[object]] = 0,
    program: tuple[str, ...] = MODULE,
    cwd: Path | None = None,
    limit: float = LIMIT,
    variables: dict[str, str] | None = None,
) -> Iterator[Job]:
    """Start ``[mpiexec -n RANKS] python PROGRAM ARGUMENTS``, and end it with the block.

    No ``ranks``: without launcher; commands: one process of each, instead of mpilayer.
    ``variables`` are added to the environment.
    """
    if isinstance(ranks, int):
        own = [sys.executable, *program, *map(str, arguments)]
        command = [*launcher(ranks), *own]
    else:
        command = launcher(1)[:-2]
        for number, words in enumerate(ranks):
            command += [*[":"][:number], "-n", "1", *map(str, words)]
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment() | (variables or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="surrogateescape",
        start_new_session=True,
    )
    job = Job(process, limit)
    try:
        yield job
    finally:
        if process.poll() is None:
            job.end()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def run(
    *arguments: object, apart: bool = False, cwd: Path | None = None, **options: object
) -> Result:
    """Start, and wait for the end; see :func:`started`.

    Without any other option, and unless ``apart``, mpilayer is carried out in this
    process: it is the same, but a new one takes a second to begin. Not from a thread:
    folder, variables and output are those of all threads.
    """
    alone = threading.current_thread() is threading.main_thread()
    if alone and not apart and not any(options.values()):
        return here(*arguments, cwd=cwd)
    with started(*arguments, cwd=cwd, **options) as job:  # type: ignore[arg-type]
        return job.finish()


def here(*arguments: object, cwd: Path | None = None) -> Result:
    """Carry a command out in this process, and leave it as it was."""
    from mpilayer.cli.main import main

    began = time.monotonic()
    # Standard output and error are no terminals.
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "mpilayer") for _ in range(2))
    with (
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, environment(), clear=True),
        threadpool_limits(limits=1),
        warnings.catch_warnings(),
        contextlib.ExitStack() as stack,
    ):
        for number in _SIGNALS:
            stack.callback(signal.signal, number, signal.getsignal(number))
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
            warnings.simplefilter("ignore", category)
        try:
            code = main([str(word) for word in arguments])
        except SystemExit as end:
            code = end.code or 0
        except Exception:
            traceback.print_exc()
            code = 1
        texts = []
        for stream in (out, err):
            stream.flush()
            told = stream.buffer.getvalue()
            texts.append(told.decode("utf-8", "surrogateescape"))
    return Result(code, *texts, time.monotonic() - began)


def driver(change: str) -> tuple[str, ...]:
    """Return a program: mpilayer's command line, after some Python has changed it."""
    return ("-c", _DRIVER.format(change=change))


def assert_user_error(result: Result, *words: str) -> None:
    """Demand exit code 2 and one message, with the words, from all ranks together."""
    assert result.code == 2, result
    messages = result.stderr.count("mpilayer: error:")
    assert messages == 1, result
    assert "Traceback" not in result.stderr, result
    message = result.stderr.partition("mpilayer: error:")[2]
    for word in words:
        assert word in message, f"{word!r} is missing\n{result}"


def launcher(ranks: int) -> list[str]:
    """Return the launcher with its flags, nothing for 0 ranks; skip without MPI."""
    if ranks == 0:
        return []
    require_mpi()
    return [*_mpiexec(), "-n", str(ranks)]


def require_mpi() -> None:
    """Skip the test, with the reason, where MPI programs cannot be started."""
    if find_spec("mpi4py") is None:
        pytest.skip("needs mpi4py")
    if not _mpiexec():
        pytest.skip("needs mpiexec: set MPIEXEC, or install an MPI")


def environment() -> dict[str, str]:
    """Return the environment of a launch: without that of a launcher around pytest."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == _KEPT or not name.startswith((*_FOREIGN, *_THREADS))
    }
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    kept["PYTHONPATH"] = os.pathsep.join(paths)
    if os.geteuid() == 0:
        # Open MPI refuses root without these.
        kept |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return kept


def is_open_mpi() -> bool:
    """Tell whether the launcher is Open MPI's."""
    return "--oversubscribe" in _mpiexec()


@cache
def _mpiexec() -> tuple[str, ...]:
    """Return the launcher and its flags; empty if there is none."""
    if given := os.environ.get("MPIEXEC"):
        return tuple(shlex.split(given))
    if not (found := mpiexec()):
        return ()
    told = subprocess.run([found, "--version"], capture_output=True, text=True)
    is_open = "Open MPI" in told.stdout or "open-mpi" in told.stdout
    return (found, "--oversubscribe") if is_open else (found,)
