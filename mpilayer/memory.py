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


def demand(n_bytes: int, what: object) -> None:
    """Refuse to hold more than there is room for.

    Parameters
    ----------
    n_bytes : int
        What will be held.
    what : Path or str
        What it comes from, for the message.

    Raises
    ------
    DataError
        There is less memory.
    """
    left = available() if n_bytes > _LITTLE else None
    if left is not None and n_bytes > left:
        raise DataError(
            f"{what} must fit into memory; it needs {n_bytes / 1e9:.3g} GB, and "
            f"{left / 1e9:.3g} GB are free. Use fewer rows, more hosts, or a larger "
            "machine."
        )


def limit_process() -> None:
    """Let this process allocate no more than there is; it gets a MemoryError then."""
    left = available()
    if left is None:
        return
    pages = int(read(Path("/proc/self/statm")).split()[0])
    most = left + pages * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY or most < soft:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def available() -> int | None:
    """Return the bytes left on the host, or in the control groups if that is less.

    None where nobody says.
    """
    kilobytes = re.search(
        r"^MemAvailable:\s+(\d+) kB", read(Path("/proc/meminfo")), re.MULTILINE
    )
    left = [1024 * int(kilobytes[1])] if kilobytes else []
    groups = room(GROUPS, read(Path("/proc/self/cgroup")))
    return min([*left, *([] if groups is None else [groups])], default=None)


def room(root: Path, groups: str) -> int | None:
    """Return the bytes left in the control groups of a process.

    Parameters
    ----------
    root : Path
        Where the control groups are mounted.
    groups : str
        Text of ``/proc/self/cgroup``.

    Returns
    -------
    int or None
        The least of the group and all those around it; None without a limit. Pages
        that only cache files count as free.
    """
    rooms = []
    for new in (True, False):
        limit, used = ("memory.max", "memory.current")
        if not new:
            limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        for folder in group_folders(root, groups, "" if new else "memory"):
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
