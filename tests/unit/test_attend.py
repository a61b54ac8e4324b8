"""Attending to a launch: signals, mark, requeue. See ``tests/e2e/test_job.py``, too."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from mpilayer.attend import Attendant, is_srun, on_ranks, table

WAITING = (
    "import pathlib, signal, sys\n"
    "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))\n"
    "pathlib.Path(sys.argv[1]).touch()\n"
    "while True: signal.pause()\n"
)


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def said(monkeypatch, tmp_path):
    """Give what is said; requests to SLURM land in ``requests``."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    program(tmp_path / "scontrol", f'echo "$@" >>{tmp_path}/requests')
    before = {n: signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGTERM)}
    yield []
    for number, handler in before.items():
        signal.signal(number, handler)


def ended(attendant, command, run):
    """Return the status that a job ends with."""
    with pytest.raises(SystemExit) as end:
        attendant.attend(command, run)
    return end.value.code


def shell(text):
    return ["sh", "-c", text]


def test_the_mark_alone_is_the_end(said, tmp_path):
    attendant = Attendant("sparse", 5, said.append)
    (tmp_path / "complete").write_text("finetune\n")
    assert ended(attendant, ["true"], tmp_path) == 1
    assert "exit status 0, and no mark of its end" in said[-1]
    assert ended(attendant, shell("exit 3"), tmp_path) == 3
    assert ended(attendant, shell("kill -9 $$"), tmp_path) == 137
    assert ended(attendant, [str(tmp_path / "none")], tmp_path) == 127
    assert "does not start: No such file" in said[-2]
    marking = shell(f"echo sparse >>{tmp_path}/complete; exit 9")
    attendant.attend(marking, tmp_path)
    assert attendant.is_done(tmp_path)
    assert not (tmp_path / "requests").exists()


@pytest.mark.parametrize(("starts", "again"), [("", True), ("1", True), ("2", False)])
def test_what_has_saved_starts_again(said, monkeypatch, tmp_path, starts, again):
    monkeypatch.setenv("SLURM_RESTART_COUNT", starts)
    assert ended(Attendant("sparse", 2, said.append), shell("exit 75"), tmp_path) == 75
    assert (tmp_path / "requests").exists() == again
    number = int(starts or 0) + 1
    expected = f"requeue {number} of 2" if again else "not ended in 2 requeues"
    assert expected in said[-1]
    program(tmp_path / "scontrol", "exit 1")
    assert ended(Attendant("sparse", 9, said.append), shell("exit 75"), tmp_path) == 75
    assert said[-1] == "not requeued; submit it to go on"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_reaches_the_command(said, tmp_path, number):
    attendant = Attendant("sparse", 5, said.append)
    ready = tmp_path / "ready"

    def warn():
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=warn)
    thread.start()
    command = [sys.executable, "-c", WAITING, str(ready)]
    assert ended(attendant, command, tmp_path) == 75
    thread.join()
    assert said[0] == f"received {number.name[3:]}"
    assert (tmp_path / "requests").exists() == (number == signal.SIGUSR1)
    # What was heard between two commands starts none.
    assert ended(attendant, shell(f"touch {tmp_path}/started"), tmp_path) == 75
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("status", [137, 143])
def test_ranks_that_srun_ends_after_the_first_have_saved(said, tmp_path, status):
    for before, expected in (("", status), ('trap "" USR1; kill -USR1 $PPID', 75)):
        program(tmp_path / "srun", f"{before}\nexit {status}")
        attendant = Attendant("sparse", 5, said.append)
        assert ended(attendant, ["srun"], tmp_path) == expected


def test_steps_are_skipped_after_a_restart(said, monkeypatch, tmp_path):
    program(tmp_path / "srun", f'echo "$@" >>{tmp_path}/steps')
    Attendant("sparse", 5, said.append).skip_steps(3)
    assert not (tmp_path / "steps").exists()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    Attendant("sparse", 5, said.append).skip_steps(3)
    steps = (tmp_path / "steps").read_text().splitlines()
    assert steps == 6 * ["--nodes=1 --ntasks=1 true"]


def test_a_command_on_several_numbers_of_ranks(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_NNODES", "2")
    monkeypatch.setenv("SLURM_NTASKS", "16")
    command = ["srun", "--nodes=%nodes", "--ntasks=%ranks", "mpilayer", "--run", "%run"]
    assert is_srun(command)
    for ranks, nodes in {1: 1, 8: 1, 9: 2, 16: 2}.items():
        found = on_ranks(command, ranks, tmp_path / "a")
        assert found[1:3] == [f"--nodes={nodes}", f"--ntasks={ranks}"]
        assert found[-1] == str(tmp_path / "a")


def test_the_table_of_speed_up(tmp_path):
    for ranks, seconds in {1: 8, 4: 2.5}.items():
        (tmp_path / str(ranks)).mkdir()
        summary = {"pretrain_seconds": seconds}
        (tmp_path / str(ranks) / "summary.json").write_text(json.dumps(summary))
    text = table("pretrain", {ranks: tmp_path / str(ranks) for ranks in (1, 4)})
    assert text.splitlines() == [
        "ranks  seconds  speed-up",
        "    1     8.00      1.00",
        "    4     2.50      3.20",
    ]
