"""All checks, in the order of the report."""

from collections.abc import Callable

from mpilayer.doctor import judge_place, judge_ranks, judge_software
from mpilayer.doctor.facts import Facts
from mpilayer.doctor.finding import Finding

CHECKS: tuple[Callable[[Facts], list[Finding]], ...] = (
    judge_software.check_versions,
    judge_software.check_hdf5,
    judge_software.check_mpi,
    judge_software.check_launcher,
    judge_software.check_extras,
    judge_software.check_job,
    judge_software.check_world,
    judge_ranks.check_hosts,
    judge_ranks.check_cores,
    judge_ranks.check_binding,
    judge_ranks.check_blas,
    judge_place.check_shm,
    judge_place.check_neighbours,
    judge_place.check_memory,
    judge_ranks.check_links,
    judge_ranks.check_clocks,
    judge_place.check_file_system,
    judge_place.check_writing,
    judge_place.check_sharing,
)


def judge(facts: Facts) -> list[Finding]:
    """Return all findings, group by group."""
    return [finding for check in CHECKS for finding in check(facts)]
