"""Batch scripts: what is written, what is refused, how a job runs and ends.

A stand-in for mpilayer does what its plan says, so that the scripts' own doings are
seen: here in bash alone, in ``test_slurm.py`` under a live SLURM.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import contents
from tests.support import launch

JOBS = launch.ROOT / "jobs"
RECORDED = sorted(path.stem for path in JOBS.glob("*.sh"))
JOB = ("--run", "run", "-o", "job.sh")

STAND_IN = """#!{python}
import json, os, signal, sys, time
from pathlib import Path

words = sys.argv[1:]
if words[0] == "attend":
    os.execv(sys.executable, [sys.executable, "-m", "mpilayer", *words])
run = Path(words[words.index("--run") + 1] if "--run" in words else words[1])
rank = int(os.environ.get("PMI_RANK", 0))
start = int(os.environ.get("SLURM_RESTART_COUNT", 0))
plan = os.environ.get(f"PLAN_{{words[0]}}", "end").split()
act = plan[min(start, len(plan) - 1)]
heard = []
signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
run.mkdir(parents=True, exist_ok=True)
if rank == 0:
    with open("calls", "a") as file:
        file.write(f"{{start}} {{act}} {{' '.join(words)}}\\n")
if act == "save":
    (run / f"waits-{{start}}-{{rank}}").write_text("!")
    while not heard:
        time.sleep(0.02)
    time.sleep(float(os.environ.get("SAVING", "0.3")) * (rank + 1))
    (run / f"saved-{{start}}-{{rank}}").touch()
    sys.exit(75)
if act in ("end", "crash") and rank == 0:
    with open(run / "complete", "a") as file:
        file.write(words[0] + "\\n")
    seconds = {{"seconds": 8.0 / int(os.environ.get("RANKS", "1"))}}
    (run / "summary.json").write_text(json.dumps(seconds))
sys.exit({{"end": 0, "crash": 9, "fail": 3, "more": 75, "nothing": 0}}[act])
"""
MPIEXEC = '#!/bin/bash\necho "$2" >>ranks\nexport RANKS=$2\nshift 2\nexec "$@"\n'
# Ends the rank that is slower than the first, as srun --kill-on-bad-exit=1 does.
SRUN = """#!/bin/bash
while [ "$1" != mpilayer ]; do shift; done
"$@" &
trap 'kill -USR1 $!' USR1
wait $!
wait $!
exit 143
"""
SCONTROL = '#!/bin/bash\necho "$@" >>requests\n'


def program(path, text):
    """Write a program."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def write_job(folder, *arguments):
    """Write a batch script in a folder of its own; return the folder."""
    program(folder / "bin" / "mpilayer", STAND_IN.format(python=sys.executable))
    launch.run("job", *arguments, cwd=folder).ok()
    return folder


def variables(folder, **plans):
    """Return the environment in which the stand-ins are found."""
    path = [folder / "bin", Path(sys.executable).parent, os.environ["PATH"]]
    found = {"PATH": os.pathsep.join(map(str, path))}
    return found | {f"PLAN_{name}": plan for name, plan in plans.items()}


# --- what is written


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_scripts_are_what_their_commands_write(tmp_path, name):
    recorded = (JOBS / f"{name}.sh").read_text()
    lines = re.findall(r"^# (.*)", recorded.partition("#SBATCH")[0], re.MULTILINE)
    command = shlex.split("\n".join(lines).replace("\\\n", ""))
    assert command[:2] == ["mpilayer", "job"]
    assert command[-2:] == ["-o", f"jobs/{name}.sh"]
    launch.run(*command[1:], cwd=tmp_path).ok()
    written = (tmp_path / "jobs" / f"{name}.sh").read_text()
    assert written == recorded, "run the command in the script again, with --replace"


def test_only_the_folder_of_a_log_is_made(tmp_path):
    arguments = ["pretrain", "a.h5", "--run", "runs/new/first", "-o", "jobs/job.sh"]
    launch.run("job", *arguments, cwd=tmp_path).ok()
    assert set(contents(tmp_path)) == {"jobs", "jobs/job.sh"}
    arguments += ["--log", "logs/new/%j.out", "--replace"]
    result = launch.run("job", *arguments, cwd=tmp_path).ok()
    assert set(contents(tmp_path)) == {"jobs", "jobs/job.sh", "logs", "logs/new"}
    assert "sbatch jobs/job.sh" in result.stderr
    assert "a.h5 is not there yet" in result.stderr


def test_standard_output_writes_nothing(tmp_path):
    result = launch.run("job", "sparse", "a.h5", *JOB[:3], "-", cwd=tmp_path).ok()
    assert result.stdout.startswith("#!/bin/bash\n# mpilayer job sparse a.h5")
    assert contents(tmp_path) == {}


def test_replacing_works_and_is_not_recorded(tmp_path):
    arguments = ["job", "pretrain", "a.h5", *JOB]
    launch.run(*arguments, cwd=tmp_path).ok()
    before = contents(tmp_path)
    launch.run(*arguments, "--replace", cwd=tmp_path).ok()
    assert contents(tmp_path) == before


def test_settings_are_passed_on_as_given(tmp_path):
    (tmp_path / "a.toml").write_text("[pretrain]\nepochs = [3]\n[finetune]\nepochs=2\n")
    options = ["--layers", "9,5", "--extra-epochs=-1,2", "--no-cut-short"]
    options += ["--checkpoint-every", "9", "--config", "a.toml"]
    options += ["--then", "finetune,evaluate"]
    job = ["job", "pretrain", "a.h5", "--run", "run", "-o", "chain", *options]
    launch.run(*job, cwd=tmp_path).ok()
    names = ("evaluate", "finetune", "pretrain", "submit")
    texts = [(tmp_path / "chain" / f"{name}.sh").read_text() for name in names]
    evaluate, finetune, pretrain, _ = (re.sub(r"\\\n +", "", text) for text in texts)
    settings = "--layers 9,5 --extra-epochs=-1,2 --no-cut-short"
    assert f'--config a.toml --checkpoint-every 9 {settings} "$@"\n' in pretrain
    assert finetune.count('--config a.toml "$@"\n') == 1
    assert "--config" not in evaluate.partition("set -u")[2]


@pytest.mark.parametrize("name", ["pretrain", "scaling"])
def test_help_of_each_command(name):
    result = launch.run("job", name, "--help", variables={"COLUMNS": "80"}).ok()
    assert result.stdout.startswith(f"usage: mpilayer job {name} ")
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "--cpus-per-task" in result.stdout
    assert "--minibatch" in result.stdout


# --- what is refused

TO_RUN = ("--run", "run")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND must come first", "pretrain"]),
        (["pretrian", "a.h5", *JOB], ["unknown command", "mean 'pretrain'"]),
        (["pretrain", "a.h5", "-o", "x.sh"], ["required: --run"]),
        (["pretrain", "a.h5", *TO_RUN], ["required: -o"]),
        (["pretrain", "a.h5", *JOB, "--ntasks", "x"], ["--ntasks", "'x'"]),
        (
            ["pretrain", "a.h5", *JOB, "--layers", "20", "--ntasks", "4"],
            ["got 4 ranks for 1 layer. Start at most 1 rank."],
        ),
        (
            [
                *("scaling", "a.h5", *JOB, "--mode", "pretrain"),
                *("--layers", "20,10", "--ntasks", "4"),
            ],
            ["got 4 ranks for 2 layers. Start at most 2 ranks."],
        ),
        (["pretrain", "a.h5", *JOB, "--time", "90"], ["--time must be", "'90'"]),
        (["pretrain", "a.h5", *JOB, "--evaluations", "9"], ["unrecognized arguments"]),
        (["pretrain", "a.h5", *JOB, "--epochs", "0"], ["epochs must be at least 1"]),
        (["pretrain", "a.h5", *JOB, "--config", "no.toml"], ["no.toml", "readable"]),
        (["finetune", "a.h5", *JOB, "--optimizer", "l-bfgs"], ["sgd, momentum, adam"]),
        (["sparse", "a.h5", *JOB, "--sparsity-target", "1"], ["less than 1"]),
        (["pretrain", "a.h5", *JOB, "--seeds", "1", "--seed", "2"], ["exclude"]),
        (["pretrain", "a.h5", *JOB, "--then", "encode"], ["unknown follower"]),
        (["sparse", "a.h5", *JOB, "--then", "finetune"], ["after sparse can come"]),
        (["pretrain", "a.h5", *TO_RUN, "--then", "finetune", "-o", "-"], ["a folder"]),
        (["scaling", "a.h5", *JOB, "--mode", "finetune"], ["unknown mode 'finetune'"]),
        (["scaling", "a.h5", *JOB, "--seeds", "1"], ["unrecognized arguments"]),
        (
            ["pretrain", "a.h5", *TO_RUN, "-o", "old.sh"],
            ["old.sh is there", "--replace"],
        ),
        (["pretrain", "a.h5", *TO_RUN, "-o", "old.sh/x"], ["old.sh", "writable"]),
        (["pretrain", "a.h5", *TO_RUN, "-o", "."], ["already"]),
        (["pretrain", "a.h5", *JOB, "--then", "evaluate"], ["evaluate.sh is there"]),
    ],
)
def test_what_is_refused(tmp_path, arguments, words):
    (tmp_path / "old.sh").touch()
    if "evaluate" in arguments:
        program(tmp_path / "job.sh" / "evaluate.sh", "")
    before = contents(tmp_path)
    result = launch.run("job", *arguments, cwd=tmp_path)
    launch.assert_user_error(result, *words)
    assert result.stdout == ""
    assert contents(tmp_path) == before


# --- how a script runs: bash alone, with stand-ins for what it calls


@pytest.fixture
def bash(tmp_path):
    """Give a function that starts a script as SLURM would."""
    for name, text in {"mpiexec": MPIEXEC, "srun": SRUN, "scontrol": SCONTROL}.items():
        program(tmp_path / "bin" / name, text)
    jobs = []

    def start(restarts=0, arguments=(), saving="0.3", task=0, **plans):
        slurm = {
            "SLURM_JOB_ID": "7",
            "SLURM_NTASKS": "2",
            "SLURM_CPUS_PER_TASK": "3",
            "SLURM_RESTART_COUNT": str(restarts),
            "SLURM_ARRAY_TASK_ID": str(task),
            "SAVING": saving,
        }
        process = subprocess.Popen(
            ["bash", "job.sh", *arguments],
            cwd=tmp_path,
            env=launch.environment() | slurm | variables(tmp_path, **plans),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        jobs.append((launch.Job(process, 30), process))
        return jobs[-1][0]

    yield start
    for job, process in jobs:
        job.end()
        process.communicate()


def calls(folder):
    """Return what the stand-in was asked for: start, act, words."""
    return [line.split(" ", 2) for line in (folder / "calls").read_text().splitlines()]


def requests(folder):
    """Return what scontrol was asked for."""
    path = folder / "requests"
    return path.read_text().splitlines() if path.exists() else []


def test_the_mark_ends_a_job_well(bash, tmp_path):
    write_job(tmp_path, "pretrain", "a.h5", *JOB, "--layers", "9,5")
    bash(arguments=("--epochs", "2")).finish().ok()
    words = "pretrain a.h5 --run run --resume auto --threads 3 --layers 9,5 --epochs 2"
    assert calls(tmp_path) == [["0", "end", words]]
    assert (tmp_path / "ranks").read_text() == "2\n"


def test_names_that_begin_as_options_do(bash, tmp_path):
    write_job(tmp_path, "sparse", "--run=-x", "-o", "job.sh", "--", "-d.h5")
    bash().finish().ok()
    assert (tmp_path / "-x" / "complete").is_file()
    assert calls(tmp_path)[0][2].startswith("sparse ./-d.h5 --run ./-x --resume auto")


@pytest.mark.parametrize("launcher", ["mpiexec", "srun"])
def test_a_warning_reaches_the_ranks_and_the_job_is_requeued(bash, tmp_path, launcher):
    write_job(tmp_path, "pretrain", "a.h5", *JOB, "--launcher", launcher)
    job = bash(pretrain="save")
    job.wait_for(tmp_path / "run" / "waits-0-0")
    for _ in range(3):
        job.signal(signal.SIGUSR1)
        time.sleep(0.05)
    result = job.finish()
    assert (tmp_path / "run" / "saved-0-0").exists()
    assert result.code == 75
    assert requests(tmp_path) == ["requeue 7"]
    assert "pretrain has saved; requeue 1 of 5" in result.stderr


def test_scaling_ends_with_a_table_and_repeats_nothing(bash, tmp_path):
    write_job(tmp_path, "scaling", "a.h5", *JOB, "--ntasks", 6, "--evaluations", 9)
    result = bash().finish().ok()
    assert (tmp_path / "ranks").read_text().split() == ["1", "2", "4", "6"]
    assert result.stdout.splitlines() == [
        "ranks  seconds  speed-up",
        "    1     8.00      1.00",
        "    2     4.00      2.00",
        "    4     2.00      4.00",
        "    6     1.33      6.00",
    ]
    shutil.rmtree(tmp_path / "run" / "ranks-4")
    assert bash().finish().ok().stdout == result.stdout
    assert (tmp_path / "ranks").read_text().split() == ["1", "2", "4", "6", "4"]


def test_each_seed_has_a_run_of_its_own(bash, tmp_path):
    write_job(tmp_path, "pretrain", "a.h5", *JOB, "--seeds", "5,3")
    bash(task=1).finish().ok()
    assert calls(tmp_path)[0][2].startswith("pretrain a.h5 --run run-seed-3 ")
    assert "--seed 3" in calls(tmp_path)[0][2]
    assert (tmp_path / "run-seed-3" / "complete").exists()
