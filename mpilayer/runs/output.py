"""Files that a user names with ``-o``: their ending, whether they are new, writing."""

from collections.abc import Collection
from pathlib import Path

from mpilayer.errors import ConfigError
from mpilayer.runs.directory import write_bytes


def check_output(out: Path, endings: Collection[str], replace: bool, flag: str) -> str:
    """Check the name of a file to be written, without writing anything.

    Parameters
    ----------
    out : Path
        The file.
    endings : collection of str
        Those that say a format, such as ``.h5``.
    replace : bool
        The file may be there already.
    flag : str
        The option that says so.

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
            f"{flag}."
        )
    return ending


def write_output(out: Path, content: bytes) -> None:
    """Write a file that is whole or as it was before. Local.

    Raises
    ------
    ConfigError
        The folder does not exist or cannot be written, or the disk is full.
    """
    try:
        write_bytes(out, content)
    except OSError as error:
        raise ConfigError(
            f"{out} must be writable; {str(error.strerror).lower()}. Nothing was "
            "written. Choose another place, or mend its permissions or free space."
        ) from error
