"""Numbers of things in words, for messages and tables."""

from collections.abc import Collection, Iterable, Sequence


def plural(what: str, number: float) -> str:
    """Return what one thing is called, or several, such as ``rank`` and ``ranks``."""
    return what if number == 1 else f"{what}s"


def count(number: float, what: str) -> str:
    """Return a number of things, such as ``2 ranks``."""
    return f"{number} {plural(what, number)}"


def few(names: Sequence[str], most: int) -> str:
    """Return so many of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most]) or 'nothing'}{more}"


def spans(numbers: Iterable[int]) -> str:
    """Return numbers in order, those that follow one another as one: ``0-2,5``."""
    ordered = sorted(set(numbers))
    firsts = [n for n in ordered if n - 1 not in ordered]
    lasts = [n for n in ordered if n + 1 not in ordered]
    pairs = zip(firsts, lasts, strict=True)
    return ",".join(f"{a}-{b}" if a < b else str(a) for a, b in pairs)


def which_ranks(numbers: Collection[int]) -> str:
    """Return which ranks they are, such as ``rank 3`` and ``ranks 0-2``."""
    return f"{plural('rank', len(numbers))} {spans(numbers)}"
