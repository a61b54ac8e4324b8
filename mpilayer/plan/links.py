"""What messages take: networks by name, or as ``doctor`` has measured them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, log2
from pathlib import Path
from statistics import median
from typing import Any

from mpilayer.environment import one_machine
from mpilayer.errors import ConfigError, check_known
from mpilayer.words import few


@dataclass(frozen=True)
class Link:
    """Seconds of a short message one way, and bytes a second of long ones."""

    latency: float
    bandwidth: float


ONE_HOST = "one-host"
GUESS = "ethernet-10"
"""Nobody has measured this one for us."""

PRESETS: Mapping[str, Link] = {
    "slingshot-11": Link(3.0e-6, 24e9),
    "infiniband-200": Link(1.6e-6, 23.7e9),
    "infiniband-100": Link(4.8e-6, 12.3e9),
    "roce-100": Link(1.7e-6, 12.25e9),
    GUESS: Link(30e-6, 1.1e9),
    "ethernet-1": Link(180e-6, 0.11e9),
    ONE_HOST: Link(0.25e-6, 14e9),
}
"""Networks by name; the last is memory that ranks of a host share."""

# What a call of MPI takes from Python, and until it is noticed that it is complete:
# two ranks on two cores, MPICH 5.
_CALL = 12e-6


@dataclass(frozen=True)
class Links:
    """How ranks reach one another: on a host, and between hosts.

    ``memory`` are bytes a second that a host copies; ``shared`` names hosts that are
    one machine.
    """

    name: str
    local: Link
    network: Link
    memory: float
    shared: tuple[str, ...] = ()

    def message(self, n_bytes: float, same_host: bool) -> float:
        """Return the seconds of a message."""
        link = self.local if same_host else self.network
        return _CALL + link.latency + n_bytes / link.bandwidth

    def allreduce(self, n_bytes: float, n_ranks: int, n_hosts: int) -> float:
        """Return the seconds of a sum over all ranks, the better of two ways.

        Short arrays go round by doubling, long ones are cut (Rabenseifner 2004); on a
        host all of its ranks' arrays pass through its memory.
        """
        if n_ranks == 1:
            return 0.0
        link = self.local if n_hosts == 1 else self.network
        rounds, part = log2(n_ranks), (n_ranks - 1) / n_ranks
        short = rounds * (link.latency + n_bytes / link.bandwidth)
        long = 2 * rounds * link.latency + 2 * n_bytes * part / link.bandwidth
        long += n_bytes * part / self.memory
        crowd = -(-n_ranks // n_hosts)
        on_host = n_bytes * crowd / self.memory if crowd > 1 else 0.0
        return _CALL * (1 + rounds) + min(short, long) + on_host


def links_of(preset: str, file: Path | None, memory: float) -> Links:
    """Return the links of a preset, or of none; those that a file tells come first.

    ConfigError: an unknown preset, or a file that ``doctor --json`` has not written.
    """
    if preset:
        check_known("cluster", preset, PRESETS)
    name, network = preset or ONE_HOST, PRESETS[preset or ONE_HOST]
    links = Links(name, PRESETS[ONE_HOST], network, memory)
    return links if file is None else _measured(file, links)


def _measured(file: Path, usual: Links) -> Links:
    """Return the links with what ``doctor --json`` has measured in their place."""
    try:
        facts = json.loads(file.read_text("utf-8"))["facts"]
        hosts = [str(rank["host"]) for rank in facts["ranks"]]
        boots = [str(rank.get("boot", "")) for rank in facts["ranks"]]
        pairs = [
            (str(pair["host"]), Link(float(pair["latency"]), float(pair["bandwidth"])))
            for pair in facts["links"]["pairs"]
        ]
    except OSError as error:
        raise _no_links(file, str(error.strerror)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _no_links(file, f"{type(error).__name__}: {error}") from error
    values = [value for _, link in pairs for value in (link.latency, link.bandwidth)]
    wrong = [str(value) for value in values if not (isfinite(value) and value > 0)]
    if wrong or not pairs:
        raise _no_links(file, f"{few(wrong, 3)} for seconds and speeds")
    near = _middle([link for host, link in pairs if host == hosts[0]])
    far = _middle([link for host, link in pairs if host != hosts[0]])
    # What one host has measured says nothing of a network that was named.
    far = far or (near if usual.name == ONE_HOST else None)
    name, local = file.name if far else usual.name, near or usual.local
    shared = next(iter(one_machine(zip(hosts, boots, strict=True))), ())
    return Links(name, local, far or usual.network, usual.memory, tuple(shared))


def _middle(links: list[Link]) -> Link | None:
    if not links:
        return None
    latency = median(link.latency for link in links)
    return Link(latency, min(link.bandwidth for link in links))


def _no_links(file: Path, found: Any) -> ConfigError:
    return ConfigError(
        f"--links must be what 'mpilayer doctor --json' prints on two ranks or more; "
        f"{file}: found {found}. Write it with 'mpiexec -n 2 mpilayer doctor --json'."
    )
