"""Variables that a former job, or a rank around this process, has left."""

import pytest

from tests.support import launch
from tests.support.command import call, said

# A rank of somebody's program, which starts mpilayer's commands.
RANK = """
import os, shlex, subprocess, sys
from mpi4py import MPI

command = [sys.executable, "-m", "mpilayer", *sys.argv[1:]]
if {shell}:
    code = os.waitstatus_to_exitcode(os.system(shlex.join(command)))
else:
    code = subprocess.run(command).returncode
assert MPI.COMM_WORLD.size == 2
assert code == 0
"""


LEFT_OVER = {
    "SLURM_JOB_ID": "1",
    "SLURM_JOB_END_TIME": "1700000000",
    "SLURM_STEP_NUM_TASKS": "4",
    "PMI_RANK": "3",
    "PMI_SIZE": "4",
    "PMI_FD": "97",
    "OMP_NUM_THREADS": "²",
}


def test_training_takes_no_notice(tiny, tmp_path):
    line = f"pretrain {tiny} --run run --layers 8,4 --epochs 3 --minibatch 50"
    assert "layer 2: 3/3" in call(tmp_path, line, variables=LEFT_OVER).ok().stderr


@pytest.mark.parametrize("shell", [False, True])
def test_a_command_that_a_rank_starts(pretrained, shell):
    program = ("-c", RANK.format(shell=shell))
    done = launch.run("evaluate", pretrained, program=program, ranks=2).ok()
    assert done.stdout.count("pretrained stack on 60 test rows") == 2, done


def test_a_folder_of_the_same_name_is_not_the_package(tmp_path):
    # Such as the checkout, for who works in the folder above it.
    (tmp_path / "mpilayer").symlink_to(launch.ROOT)
    program = ("-c", "from mpilayer import RBM; print(RBM.__module__)")
    text = said(tmp_path, "", program=program, variables={"PYTHONPATH": ""})
    assert text.split() == ["mpilayer.estimators.layer"]
