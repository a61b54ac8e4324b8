"""Batch scripts as text."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mpilayer.errors import ConfigError
from mpilayer.slurm import (
    JobConfig,
    Step,
    check_chain,
    render,
    render_submit,
    scaling_ranks,
    seconds,
)

STEP = Step("pretrain", "digits.h5", "runs/first", ("--layers", "14,10"))
CONFIG = JobConfig(nodes=2, ntasks=8, time="02:30:00")
JOBS = Path(__file__).parents[2] / "jobs"


def asked(script):
    """Return what the script asks of SLURM, by name."""
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH --")]
    pairs = (line.removeprefix("#SBATCH --").partition("=") for line in lines)
    return {name: value for name, _, value in pairs}


def command(script):
    """Return the words of the command that a script attends to."""
    words = script.replace("\\\n", " ").partition("\nexec mpilayer attend ")[2].split()
    return words[words.index("--") + 1 :]


def test_what_slurm_is_asked_for_on_request():
    given = {"partition": "long", "account": "a.b", "mem": "8G", "log": "x.out"}
    config = replace(CONFIG, ntasks=7, warn_seconds=300, **given)
    script = render(replace(STEP, seeds=(5, 3, 8)), config)
    found = asked(script)
    given |= {"output": given.pop("log"), "signal": "B:USR1@300", "array": "0-2"}
    assert given.items() <= found.items()
    assert "##SBATCH" not in script
    assert "ntasks-per-node" not in found


SRUN = replace(CONFIG, launcher="srun")
SPARSE = replace(STEP, command="sparse", options=("--evaluations", "9"))


@pytest.mark.parametrize("mpi", ["pmi2", "pmix"])
@pytest.mark.parametrize("scaling", [False, True])
def test_srun(mpi, scaling):
    script = render(SPARSE, replace(SRUN, mpi=mpi), scaling=scaling)
    words = command(script)
    ranks = ["--nodes=%nodes", "--ntasks=%ranks"]
    assert words[: words.index("mpilayer")] == [
        "srun",
        f"--mpi={mpi}",
        "--kill-on-bad-exit=1",
        *(ranks if scaling else ['--ntasks="$SLURM_NTASKS"']),
        '--cpus-per-task="$SLURM_CPUS_PER_TASK"',
        "--cpu-bind=cores",
    ]
    assert "BINDING" not in script


def test_ranks_of_several_threads_are_bound_by_slurm_alone():
    assert ' --threads "$SLURM_CPUS_PER_TASK"' in render(STEP, CONFIG)
    script = render(STEP, replace(CONFIG, cpus_per_task=4, threads=2))
    assert " --threads 2 " in script
    assert asked(script)["cpus-per-task"] == "4"
    assert "HYDRA_BINDING" not in script
    assert "OMPI_MCA_hwloc_base_binding_policy=none" in script


def test_evaluating_needs_one_rank_and_no_mark():
    script = render(replace(STEP, command="evaluate", options=()), CONFIG)
    assert 'mpilayer evaluate "$run" --data "$data"' in script
    found = asked(script)
    assert (found["nodes"], found["ntasks"]) == ("1", "1")
    assert "signal" not in found
    assert not any(word in script for word in ("mpiexec", "attend", "BINDING"))


def test_seeds():
    script = render(replace(STEP, seeds=(5, 3)), CONFIG)
    assert "\nseeds=(5 3)\nseed=${seeds[SLURM_ARRAY_TASK_ID]}\n" in script
    assert "\nrun=runs/first-seed-$seed\n" in script
    assert command(script)[-5:-1] == ["--seed", '"$seed"', "--layers", "14,10"]
    assert asked(script)["output"] == "%x-%A_%a.out"


def test_scaling_ranks_and_times():
    found = {n: scaling_ranks(n) for n in (1, 2, 6, 8)}
    assert found == {1: [1], 2: [1, 2], 6: [1, 2, 4, 6], 8: [1, 2, 4, 8]}
    expected = {"00:10:00": 600, "100:00:01": 360_001, "2-03:00:00": 183_600}
    assert {time: seconds(time) for time in expected} == expected


def test_submitting_a_chain():
    script = SCRIPTS["submit-three"]
    assert '--dependency="afterok:${pretrain%%;*}"' in script
    assert '--dependency="afterok:${finetune%%;*}"' in script
    assert script.count("--kill-on-invalid-dep=yes") == 2
    assert script.count("$(sbatch --parsable") == 3
    script = render_submit(["sparse", "evaluate"], array=True)
    assert "aftercorr:${sparse%%;*}" in script


SCRIPTS = {
    "mpiexec": render(STEP, CONFIG),
    "srun": render(STEP, SRUN),
    "seeds": render(replace(STEP, seeds=(1, 2)), CONFIG),
    "blanks": render(replace(STEP, run="a 'b' $c/%d e"), CONFIG),
    "evaluate": render(replace(STEP, command="evaluate"), CONFIG),
    "scaling": render(STEP, CONFIG, scaling=True),
    "scaling-srun": render(STEP, SRUN, scaling=True),
    "threads": render(STEP, replace(CONFIG, cpus_per_task=2)),
    "environment": render(STEP, replace(CONFIG, environment="module load x\n. ./y")),
    "submit": render_submit(["pretrain", "finetune"], array=True),
    "submit-three": render_submit(["pretrain", "finetune", "evaluate"], array=False),
    **{path.name: path.read_text() for path in JOBS.glob("*.sh")},
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_can_read_it_and_shellcheck_has_nothing_to_say(name):
    assert max(map(len, SCRIPTS[name].splitlines())) <= 88
    for line in (["bash", "-n"], ["shellcheck", "-"]):
        if shutil.which(line[0]):
            subprocess.run(line, input=SCRIPTS[name], text=True, check=True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        *(
            ({"time": time}, "--time must be HH:MM:SS .*got")
            for time in ("", "10", "10:00", "1:60:00", "1:00:60", "a", "1h")
        ),
        ({"threads": 3, "cpus_per_task": 2}, "got 3 threads on 2"),
        ({"nodes": 3, "ntasks": 2}, "every node needs a rank; got 3 nodes for 2"),
        ({"warn_seconds": 65536}, "warn_seconds must be less than 65536"),
        ({"time": "00:02:00"}, "warning must come after the start; got 120 s"),
        ({"partition": "a b"}, "--partition must be something .*got 'a b'"),
        ({"account": "a\n#SBATCH --x"}, "--account must be something"),
        ({"mem": "8 GB"}, "--mem must be something .*got '8 GB'"),
        ({"log": "a\nb"}, "--log must have no line breaks"),
        # Of a step.
        ({"command": "train"}, "unknown command 'train'"),
        ({"data": "a\nb"}, "DATA.h5 must have no line breaks"),
        ({"run": "a\x1bb"}, "--run must have no line breaks"),
        ({"seeds": (1, 1)}, "--seeds must be different numbers.*got 1,1"),
        ({"seeds": (-1,)}, "--seeds must be different numbers, 0 or more; got -1"),
    ],
)
def test_what_is_refused(values, words):
    changed = STEP if values.keys() <= vars(STEP).keys() else JobConfig()
    with pytest.raises(ConfigError, match=words):
        replace(changed, **values)


def test_chains():
    check_chain(["pretrain", "finetune", "evaluate"])
    check_chain(["sparse", "evaluate"])
    for chain, words in (
        ("pretrain finetun", "Did you mean 'finetune'"),
        ("sparse finetune", "after sparse can come evaluate; got fine"),
        ("compare evaluate", "after compare can come nothing; got eval"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_chain(chain.split())
