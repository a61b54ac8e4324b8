"""Paired timing: candidates take turns, ratios are taken round by round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Candidates = Mapping[str, Callable[[], float]]
"""Name to a function that does the work once and returns its seconds."""

Say = Callable[[str], None]
"""Tells the user a line."""


def silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Comparison:
    """Seconds of each candidate, round by round.

    Attributes
    ----------
    seconds : dict of str to list of float
        One number a round, rounds in the same order for all.
    """

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Return the median seconds of a candidate."""
        return median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """Return the median over rounds of the ratio of seconds."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return median(a / b for a, b in pairs)

    def spread(self, name: str, base: str) -> tuple[float, float]:
        """Return the smallest and the largest such ratio."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        ratios = [a / b for a, b in pairs]
        return min(ratios), max(ratios)


def take_turns(
    candidates: Candidates,
    rounds: int,
    warm_up: int = 1,
    say: Say = silent,
) -> Comparison:
    """Run all candidates in turn, round after round; the first rounds do not count.

    Machines drift by more than most improvements are worth: only neighbours in time are
    compared.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(warm_up + rounds):
        for name, work in candidates.items():
            taken = work()
            if number >= warm_up:
                seconds[name].append(taken)
        if number >= warm_up and rounds > 1:
            times = ", ".join(f"{n} {s[-1]:.4g} s" for n, s in seconds.items())
            say(f"round {number - warm_up + 1}/{rounds}: {times}")
    return Comparison(seconds)
