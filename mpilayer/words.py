"""Numbers of things in words, for messages and tables."""

from collections.abc import Iterable, Sequence


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
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    ends = (dict.fromkeys((own[0], own[-1])) for own in found)
    return ",".join("-".join(map(str, own)) for own in ends)


def which_ranks(numbers: Sequence[int]) -> str:
    """Return which ranks they are, such as ``rank 3`` and ``ranks 0-2``."""
    return f"{plural('rank', len(numbers))} {spans(numbers)}"
