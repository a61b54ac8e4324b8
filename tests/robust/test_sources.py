"""Whatever is wrong with a file that a user gives: a message and code 2.

Some 120 damaged files in CI; ``ROBUST_TRIES``: how many of each kind.
"""

import os
import subprocess
import sys
from collections import Counter
from subprocess import PIPE, STDOUT

import pytest

from tests.conftest import MNIST
from tests.robust.damage import KINDS
from tests.support import launch
from tests.support.command import refuse

TRIES = int(os.environ.get("ROBUST_TRIES", "8"))
DAMAGED = MNIST.with_name("damaged")
# Seconds for one file, on a busy machine; SciPy is loaded anew for each .mat file.
EACH = 30.0


def tried(kind, first, last):
    """Return the verdicts on damaged files; go on behind one that ends the child."""
    found = []
    while first < last:
        command = [sys.executable, "-m", "tests.robust.damage", kind, first, last]
        with subprocess.Popen(
            map(str, command), cwd=launch.ROOT, stdout=PIPE, stderr=STDOUT, text=True
        ) as child:
            try:
                out, _ = child.communicate(timeout=60 + EACH * (last - first))
            except subprocess.TimeoutExpired:
                child.kill()
                out, _ = child.communicate()
        for line in out.splitlines():
            if line.startswith("try "):
                first = int(line[4:]) + 1
            else:
                found.append(f"{kind} {first - 1}: {line}")
        if child.returncode:
            found.append(f"{kind} {first - 1}: ended with {child.returncode}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind):
    found = tried(kind, 0, TRIES)
    print(kind, Counter(line.rpartition(": ")[2] for line in found))
    bad = [line for line in found if not line.endswith((": 0", ": 2"))]
    assert not bad, "\n".join(bad)
    assert len(found) == TRIES * len(KINDS[kind][2])


PREPARE = "data prepare {} -o out.h5"
PATCHES = "data patches {} -o out.h5"
INFO = "data info {} --verify"
PRETRAIN = "pretrain {} --run run --layers 3"
SPARSE = "sparse {} --run run --hidden 3"
SAMPLES = {
    "segfault.mat": (PREPARE, PATCHES),
    "header.npy": (PREPARE, PATCHES),
    "layout.h5": (PATCHES, INFO),
    "btree.h5": (PATCHES, INFO),
    "dataset-header.h5": (INFO, PRETRAIN, SPARSE),
    "dataset-group.h5": (INFO, PRETRAIN, SPARSE),
}


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", SAMPLES)
def test_samples_of_damage(tmp_path, name):
    for line in SAMPLES[name]:
        refuse(tmp_path, line.format(DAMAGED / name), f"{name} must be a whole ")
