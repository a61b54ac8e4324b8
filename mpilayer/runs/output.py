"""Files that a user names with ``-o``: their ending, and whether they are new."""

from collections.abc import Collection
from pathlib import Path

from mpilayer.errors import ConfigError

PAGES = (".html", ".htm")
"""Endings of reports."""


def check_output(out: Path, endings: Collection[str], replace: bool) -> str:
    """Check the name of a file to be written, without writing anything.

    Parameters
    ----------
    out : Path
        The file.
    endings : collection of str
        Those that say a format, such as ``.h5``.
    replace : bool
        The file may be there already.

    Returns
    -------
    str
        The ending, in small letters.

    Raises
    ------
    ConfigError
        Another ending, or the file exists.
    """
    ending = out.suffix.lower()
    if ending not in endings:
        raise ConfigError(
            f"-o must end in {', '.join(endings)}; got {out}. The ending says the "
            "format: choose one of these."
        )
    if out.exists() and not replace:
        raise ConfigError(
            f"-o must name a new file; {out} exists. Choose another name, or give "
            "--replace."
        )
    return ending
