"""Numbers of things in words, for messages and tables."""


def plural(what: str, number: float) -> str:
    """Return what one thing is called, or several, such as ``rank`` and ``ranks``."""
    return what if number == 1 else f"{what}s"


def count(number: float, what: str) -> str:
    """Return a number of things, such as ``2 ranks``."""
    return f"{number} {plural(what, number)}"
