"""Under SLURM: jobs by srun, and the mistake that srun makes easy."""

import shlex
import subprocess
import sys

import pytest

from tests.e2e.conftest import contents, digests, read_summary
from tests.support import launch

pytestmark = pytest.mark.slurm
SETTINGS = (
    "--layers",
    "14,10,8,4",
    "--epochs",
    "2",
    "--minibatch",
    "50",
    "--threads",
    "1",
)


@pytest.fixture(autouse=True)
def launcher():
    """Skip, with the reason, where the MPI is not one that srun --mpi=pmi2 starts."""
    launch.require_mpi()
    if launch.is_open_mpi():
        pytest.skip("needs an MPI that srun --mpi=pmi2 can start (MPICH, Intel MPI)")


def sbatch(folder, *options, srun, arguments):
    """Run mpilayer by srun in a job of its own; return exit code, stdout, stderr."""
    command = [sys.executable, "-m", "mpilayer", *map(str, arguments)]
    script = folder / "job.sh"
    script.write_text(
        "#!/bin/bash\n"
        f"export PYTHONPATH={shlex.quote(launch.environment()['PYTHONPATH'])}\n"
        f"exec srun --kill-on-bad-exit=1 {srun} {shlex.join(command)}\n"
    )
    outputs = ["--output=job.out", "--error=job.err"]
    job = subprocess.run(
        ["sbatch", "--wait", "--time=2", *outputs, *options, str(script)],
        cwd=folder,
        env=launch.environment(),
        capture_output=True,
        text=True,
        timeout=180,
    )
    texts = [folder / name for name in ("job.out", "job.err")]
    out, err = (path.read_text() if path.exists() else "" for path in texts)
    return launch.Result(job.returncode, out, job.stderr + err, 0.0)


@pytest.mark.parametrize("nodes", [1, 2])
def test_pretraining_by_srun(tiny, pretrained, tmp_path, nodes):
    arguments = ["pretrain", tiny, "--run", tmp_path / "run", *SETTINGS]
    options = [f"--nodes={nodes}", "--ntasks=4", f"--ntasks-per-node={4 // nodes}"]
    result = sbatch(tmp_path, *options, srun="--mpi=pmi2", arguments=arguments)
    if nodes == 2 and "node configuration is not available" in result.stderr:
        pytest.skip("needs two nodes")
    result.ok()
    summary = read_summary(tmp_path / "run")
    assert summary["ranks"] == 4
    assert result.stdout.count("Seconds of each layer") == 1
    launch.run("evaluate", tmp_path / "run").ok()
    assert digests(tmp_path / "run") == digests(pretrained)


def test_srun_without_mpi_is_refused(tiny, tmp_path):
    arguments = ["pretrain", tiny, "--run", tmp_path / "run", *SETTINGS]
    result = sbatch(tmp_path, "--ntasks=4", srun="--mpi=none", arguments=arguments)
    words = ["launcher started 4 processes", "joined 1", "srun --mpi=pmi2"]
    launch.assert_user_error(result, *words)
    assert not (tmp_path / "run").exists()
    assert result.stdout == ""
    assert set(contents(tmp_path)) == {"job.sh", "job.out", "job.err"}
