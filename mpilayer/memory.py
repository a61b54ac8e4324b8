"""How much memory there is, and the refusal of what it cannot hold; local.

Asked before anything is read: a system that gives more memory than it has ends the
process afterwards, without a word. Standard library only.
"""

import re
import resource
from pathlib import Path

from mpilayer.environment import GROUPS, group_folders, read
from mpilayer.errors import DataError

# A limit of that many bytes is none: the old control groups know no other word for it.
_NO_LIMIT = 1 << 60
# Less is there, or missing anyhow.
_LITTLE = 1 << 26
# Of new and old control groups: their controller, a limit, and what is used of it.
_FILES = (
    ("", "memory.max", "memory.current"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)

_UNITS = "KMGT"


def size_of(text: str) -> int | None:
    """Return the bytes that a size such as ``500M`` or ``1.5G`` means; None if none.

    K, M, G and T are powers of 1024.
    """
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)([{_UNITS}]?)(?:I?B)?", text.upper().strip())
    if found is None:
        return None
    return int(float(found[1]) * 1024 ** (1 + _UNITS.find(found[2] or "-")))


def demand(
    n_bytes: int,
    what: object,
    advice: str = "Use fewer rows, more hosts, or a larger machine.",
    ranks: int = 1,
) -> None:
    """Raise DataError where there is no room for so many bytes of ``what`` to come.

    So many ``ranks`` of the host need as much at the same time.
    """
    left = available(ranks) if n_bytes > _LITTLE else None
    if left is not None and n_bytes > left:
        raise DataError(
            f"{what} must fit into memory; it needs {n_bytes / 1e9:.3g} GB, and "
            f"{left / 1e9:.3g} GB are free. {advice}"
        )


def limit_process() -> None:
    """Let this process allocate no more than there is; it gets a MemoryError then."""
    left = available()
    if left is None:
        return
    most = left + _own_size()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY or most < soft:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _own_size() -> int:
    pages = int(read(Path("/proc/self/statm")).split()[0])
    return pages * resource.getpagesize()


def available(ranks: int = 1) -> int | None:
    """Return the bytes left to this process; None if nobody says.

    By the host and control groups, which so many ``ranks`` share, and by the limit of
    the process (``ulimit -v``).
    """
    kilobytes = re.findall(r"\bMemAvailable:\s+(\d+) kB", read(Path("/proc/meminfo")))
    left = [1024 * int(number) // ranks for number in kilobytes]
    in_groups = room(GROUPS, read(Path("/proc/self/cgroup")))
    if in_groups is not None:
        left.append(in_groups // ranks)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        left.append(max(0, limit - _own_size()))
    return min(left, default=None)


def room(root: Path, groups: str) -> int | None:
    """Return the bytes left in the control groups of a process; None without a limit.

    The least of the group and all those around it, as the text ``groups`` of
    ``/proc/self/cgroup`` says, mounted at ``root``. Pages that only cache files count
    as free.
    """
    rooms = []
    for controller, limit, used in _FILES:
        for folder in group_folders(root, groups, controller):
            most = read(folder / limit).strip()
            if most.isdigit() and int(most) < _NO_LIMIT:
                now = int(read(folder / used).strip() or 0)
                cache = _cached(read(folder / "memory.stat"))
                rooms.append(max(0, int(most) - now + min(cache, now)))
    return min(rooms, default=None)


def _cached(statistics: str) -> int:
    lines = dict(line.split(" ", 1) for line in statistics.splitlines() if " " in line)
    # The old control groups leave those inside out, but for the lines with "total_".
    return int(lines.get("total_inactive_file") or lines.get("inactive_file") or 0)
