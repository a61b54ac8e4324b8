"""The doctor: alone, with others, in bad places, and with ranks that are not joined."""

import json
import sys

import pytest

from tests.support import launch
from tests.support.command import call, refuse
from tests.support.small import contents

COLUMNS = {"COLUMNS": "80"}


def examine(folder, line="doctor", **options):
    """Return what --json says, printed once, and all problems found, by subject."""
    result = call(folder, f"{line} --json", **options)
    assert "Traceback" not in result.stderr, str(result)
    record = json.loads(result.stdout)
    grave = {f["subject"]: f for f in record["findings"] if f["verdict"] == "problem"}
    assert result.code == (1 if grave else 0)
    assert (record["verdict"] == "problem") == bool(grave)
    assert contents(folder) == {}
    return record, grave


def test_alone(tmp_path):
    record, _ = examine(tmp_path)
    assert record["ranks"] == 1
    assert record["facts"]["folder"]["path"] == str(tmp_path)
    refuse(tmp_path, "doctor --threads many", "--threads", "many")


def test_the_report_fits_a_terminal(tmp_path):
    result = call(tmp_path, "doctor .", ranks=3, variables=COLUMNS)
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80, str(result)
    headings = [line for line in lines if line and line[0].isalpha()]
    assert headings[:3] == ["software", "ranks", "cores"]
    assert result.stdout.count("HDF5 can lock files") == 1
    assert "messages" in lines
    assert contents(tmp_path) == {}


def test_two_ranks(tmp_path):
    record, _ = examine(tmp_path, "doctor . --threads 1", ranks=2)
    facts = record["facts"]
    assert record["ranks"] == 2
    assert [(r["rank"], r["threads"]) for r in facts["ranks"]] == [(0, 1), (1, 1)]
    pair = facts["links"]["pairs"][0]
    assert pair["rank"] == 1
    assert min(pair["latency"], pair["bandwidth"]) > 0
    assert [item["bytes"] for item in facts["links"]["sums"]] == [32_000, 11_000_000]
    assert all(item["seconds"] > 0 for item in facts["links"]["sums"])
    assert all(seconds is not None for seconds in facts["folder"]["seen"])


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_folder_that_cannot_be_written():
    result = launch.run("doctor", "/proc", ranks=2, variables=COLUMNS)
    assert result.code != 0
    assert "/proc must be a writable folder" in result.stdout
    assert "folder, writing: Make it" in result.stdout.partition("What to mend:")[2]


# Looks like a launcher: pytest above it looks like a rank once it has loaded MPI.
LAUNCHER = """
import subprocess, sys
open("/proc/self/comm", "w").write("mpirun")
raise SystemExit(subprocess.call([sys.executable, "-m", "mpilayer", *sys.argv[1:]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_processes_that_are_not_joined(tmp_path):
    launch.require_mpi()
    if launch.is_open_mpi():
        pytest.skip("Open MPI takes these variables for its own launcher's")
    first, how = {"PMI_SIZE": "2", "PMI_RANK": "0"}, {"program": ("-c", LAUNCHER)}
    _, grave = examine(tmp_path, variables=first, **how)
    assert "started 2 processes together" in grave["launch"]["found"]
    assert grave["launch"]["remedy"].startswith("Start it with")
    second = first | {"PMI_RANK": "1"}
    result = call(tmp_path, "doctor", variables=second, **how).ok()
    assert result.stdout == result.stderr == ""


# Rank 1 does not get as far as the others.
ABSENT = """
import mpilayer.doctor.examine as doctor
doctor._PATIENCE = 3.0
place = doctor.place

def late(*arguments):
    if rank == 1:
        time.sleep(60)
    return place(*arguments)

doctor.place = late
"""


def test_ranks_that_do_not_answer_are_ended(tmp_path):
    program = launch.driver(ABSENT)
    result = launch.run("doctor", tmp_path, ranks=2, program=program, limit=40)
    assert result.code != 0
    assert result.seconds < 20
    assert "after 3 s nobody answers" in result.stderr
    assert "Traceback" not in result.stderr, str(result)
    assert result.stdout.count("software") == 0
