"""Whatever is wrong with a file that a user gives: a message and code 2.

A hundred damaged files in CI, ``ROBUST_TRIES`` of each kind in ``make torture``.
"""

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.robust.damage import KINDS
from tests.support import launch

TRIES = int(os.environ.get("ROBUST_TRIES", "12"))
# Seconds for one file, on a busy machine; SciPy is loaded anew for each .mat file.
EACH = 30.0


def tried(kind: str, first: int, last: int) -> list[str]:
    """Return the verdicts on damaged files; go on behind one that ends the child."""
    found: list[str] = []
    while first < last:
        command = [sys.executable, "-m", "tests.robust.damage", kind]
        child = subprocess.Popen(
            [*command, str(first), str(last)],
            cwd=launch.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
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
    good = [line.endswith((": 0", ": 2")) for line in found]
    print(Counter(line.rpartition(": ")[2] for line in found))
    assert len(found) == TRIES * len(KINDS[kind][2])
    assert all(good), "\n".join(
        line for line, ok in zip(found, good, strict=True) if not ok
    )
