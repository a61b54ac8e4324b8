"""Paired timing: candidates take turns, ratios are taken round by round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

Candidates = Mapping[str, Callable[[], float]]
"""Name to a function that does the work once and returns its seconds."""


@dataclass(frozen=True)
class Comparison:
    """Seconds of each candidate by name, round by round, in the same order for all."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Return the median seconds of a candidate."""
        return median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """Return the median over rounds of the ratio of seconds."""
        return median(self.ratios(name, base))

    def ratios(self, name: str, base: str) -> list[float]:
        """Return the ratio of seconds of every round."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return [a / b for a, b in pairs]


def take_turns(
    candidates: Candidates,
    rounds: int,
    warm_up: int = 1,
    say: Callable[[str], object] | None = None,
) -> Comparison:
    """Run all candidates in turn, round after round; the first rounds do not count.

    ``say`` is told a line after each that does.

    Machines drift by more than most improvements are worth: only neighbours in time are
    compared.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(1 - warm_up, rounds + 1):
        for name, work in candidates.items():
            taken = work()
            if number > 0:
                seconds[name].append(taken)
        if say is not None and number > 0 and rounds > 1:
            times = ", ".join(f"{n} {s[-1]:.4g} s" for n, s in seconds.items())
            say(f"round {number}/{rounds}: {times}")
    return Comparison(seconds)


def repeated(
    work: Callable[[], object], times: int, steps: int = 1
) -> Callable[[], float]:
    """Return a function that does the work so often and returns the seconds of a step.

    ``steps`` are in the work once done. A first time does not count: caches are full of
    another candidate's data, and ranks leave a barrier, but not an Allreduce, one by
    one.
    """

    def timed() -> float:
        work()
        began = perf_counter()
        for _ in range(times):
            work()
        return (perf_counter() - began) / (times * steps)

    return timed
