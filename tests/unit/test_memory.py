"""How much memory there is; what does not fit is refused before it is held."""

import pytest

from mpilayer import memory
from mpilayer.errors import DataError


def test_what_does_not_fit(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda ranks: 2 * 10**9 // ranks)
    memory.demand(2 * 10**9, "a.h5")
    with pytest.raises(DataError, match=r"a\.h5 must fit .* 2.5 GB, and 2 GB are"):
        memory.demand(2_500_000_000, "a.h5")
    with pytest.raises(DataError, match=r"1\.5 GB, and 1 GB are free\. Go home\."):
        memory.demand(1_500_000_000, "a.h5", "Go home.", ranks=2)
    monkeypatch.setattr(memory, "available", lambda ranks: None)
    memory.demand(10**30, "a.h5")


def test_the_limit_of_the_process_counts(monkeypatch):
    limit = memory._own_size() + (1 << 20)
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: (limit, -1))
    assert 0 < memory.available(ranks=2) <= 1 << 20


NEW, OLD = "0::/job/step\n", "9:memory:/job\n4:cpu,cpuacct:/job\n0::/\n"
UNLIMITED = {"job/step/memory.max": "max", "job/step/memory.current": 10}
SHARED = UNLIMITED | {
    "job/memory.max": 1000,
    "job/memory.current": 400,
    "job/memory.stat": "anon 1\ninactive_file 150",
}
OLD_JOB = {
    "memory/memory.limit_in_bytes": 2**63 - 4096,
    "memory/job/memory.limit_in_bytes": 1000,
    "memory/job/memory.usage_in_bytes": 400,
    "memory/job/memory.stat": "inactive_file 5\ntotal_inactive_file 100",
}


@pytest.mark.parametrize(
    ("groups", "files", "room"),
    [
        (NEW, {}, None),
        (NEW, UNLIMITED, None),
        (NEW, SHARED, 750),
        (NEW, SHARED | {"memory.max": 100, "memory.current": 400}, 0),
        (OLD, {"memory/memory.limit_in_bytes": 2**63 - 4096}, None),
        (OLD, OLD_JOB, 700),
    ],
)
def test_memory_of_groups(tmp_path, groups, files, room):
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    assert memory.room(tmp_path, groups) == room
