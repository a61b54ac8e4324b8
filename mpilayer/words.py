"""Numbers of things in words, for messages and tables."""

from collections.abc import Sequence


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
