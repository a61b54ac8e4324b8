"""Batch scripts: what is written, what is refused, how a job runs and ends.

A stand-in for mpilayer does what its plan says, so that the scripts' own doings are
seen: here in bash alone, in ``test_slurm.py`` under a live SLURM.
"""

import os
import re
import shlex
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import launch
from tests.support.command import call, refuse, said
from tests.support.small import contents

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
    time.sleep(0.3 * (rank + 1))
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
EXECUTE = ("-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])")
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
    line = "job pretrain a.h5 --run runs/new/first -o jobs/job.sh"
    said(tmp_path, line)
    before = contents(tmp_path)
    assert set(before) == {"jobs", "jobs/job.sh"}
    said(tmp_path, f"{line} --replace")  # which is not recorded
    assert contents(tmp_path) == before
    result = call(tmp_path, f"{line} --log logs/new/%j.out --replace").ok()
    assert set(contents(tmp_path)) == {"jobs", "jobs/job.sh", "logs", "logs/new"}
    assert "sbatch jobs/job.sh" in result.stderr
    assert "a.h5 is not there yet" in result.stderr


def test_standard_output_writes_nothing(tmp_path):
    text = said(tmp_path, "job sparse a.h5 --run run -o -")
    assert text.startswith("#!/bin/bash\n# mpilayer job sparse a.h5")
    assert contents(tmp_path) == {}


def test_settings_are_passed_on_as_given(tmp_path):
    (tmp_path / "a.toml").write_text("[pretrain]\nepochs = [3]\n[finetune]\nepochs=2\n")
    settings = "--layers 9,5 --extra-epochs=-1,2 --no-cut-short"
    more = "--checkpoint-every 9 --config a.toml --then finetune,evaluate"
    said(tmp_path, f"job pretrain a.h5 --run run -o chain {settings} {more}")
    names = ("evaluate", "finetune", "pretrain", "submit")
    texts = [(tmp_path / "chain" / f"{name}.sh").read_text() for name in names]
    evaluate, finetune, pretrain, _ = (re.sub(r"\\\n +", "", text) for text in texts)
    assert f'--config a.toml --checkpoint-every 9 {settings} "$@"\n' in pretrain
    assert finetune.count('--config a.toml "$@"\n') == 1
    assert "--config" not in evaluate.partition("set -u")[2]
    # The mark of fine-tuning is that of its task.
    (tmp_path / "a.toml").write_text('[finetune]\ntask = "classify"\n')
    for options in ("--task classify", "--config a.toml"):
        text = said(tmp_path, f"job finetune a.h5 --run run -o - {options}")
        assert 'attend --mark classify --requeues 5 "$run"' in text


# --- what is refused

PRETRAIN = "pretrain a.h5 --run run -o job.sh"
SCALING = "scaling a.h5 --run run -o job.sh"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", ("COMMAND must come first", "pretrain")),
        ("pretrian a.h5 --run run -o x.sh", ("unknown command", "mean 'pretrain'")),
        ("pretrain a.h5 -o x.sh", ("required: --run",)),
        ("pretrain a.h5 --run run", ("required: -o",)),
        (f"{PRETRAIN} --layers 20 --ntasks 4",
         ("got 4 ranks for 1 slice of 1 layer. Start at most 1 rank.",)),
        (f"{SCALING} --mode pretrain --layers 20,10 --ntasks 4",
         ("got 4 ranks for 2 slices of 2 layers. Start at most 2 ranks.",)),
        ("pretrain a.h5 --run run -o chain --layers 1000,500 --ntasks 4 "
         "--then finetune --config few.toml", ("got 4 ranks", "2 slices")),
        (f"{PRETRAIN} --config no.toml", ("no.toml", "readable")),
        ("finetune a.h5 --run run -o x.sh --optimizer l-bfgs",
         ("sgd, momentum, adam",)),
        (f"{PRETRAIN} --seeds 1 --seed 2", ("exclude",)),
        ("pretrain a.h5 --run run --then finetune -o -", ("a folder",)),
        (f"{SCALING} --mode finetune", ("unknown mode 'finetune'",)),
        (f"{SCALING} --seeds 1", ("unrecognized arguments",)),
        ("pretrain a.h5 --run run -o old.sh", ("old.sh exists", "--replace")),
        ("pretrain a.h5 --run run -o old.sh/x", ("old.sh", "writable")),
        ("pretrain a.h5 --run run -o .", (". exists",)),
        ("pretrain a.h5 --run run -o old --then evaluate", ("evaluate.sh exists",)),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, line, words):
    (tmp_path / "old.sh").touch()
    (tmp_path / "few.toml").write_text("[finetune]\nslices = 2\n")
    program(tmp_path / "old" / "evaluate.sh", "")
    refuse(tmp_path, f"job {line}", *words)


# --- how a script runs: bash alone, with stand-ins for what it calls


@pytest.fixture
def bash(tmp_path):
    """Give a function that starts a script as SLURM would."""
    for name, text in {"mpiexec": MPIEXEC, "srun": SRUN, "scontrol": SCONTROL}.items():
        program(tmp_path / "bin" / name, text)
    with ExitStack() as jobs:

        def start(*arguments, task=0, **plans):
            slurm = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}
            slurm |= {"SLURM_CPUS_PER_TASK": "3", "SLURM_RESTART_COUNT": "0"}
            slurm |= {"SLURM_ARRAY_TASK_ID": str(task)} | variables(tmp_path, **plans)
            how = {"program": EXECUTE, "cwd": tmp_path, "variables": slurm}
            words = ("bash", "job.sh", *arguments)
            return jobs.enter_context(launch.started(*words, **how, limit=30))

        yield start


def calls(folder):
    """Return what the stand-in was asked for: start, act, words."""
    return [line.split(" ", 2) for line in (folder / "calls").read_text().splitlines()]


def test_the_mark_ends_a_job_well(bash, tmp_path):
    write_job(tmp_path, "pretrain", "a.h5", *JOB, "--layers", "9,5")
    bash("--epochs", 2).finish().ok()
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
    assert (tmp_path / "requests").read_text() == "requeue 7\n"
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
