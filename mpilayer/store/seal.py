"""A seal at the end of a file: who opens a damaged one learns it before HDF5 does.

HDF5 trusts its own structures: one wrong byte among them may end the whole process
instead of raising an error. So a checkpoint ends with the SHA-256 of all bytes before,
in a line that HDF5 ignores. Older files have none.
"""

import hashlib
from pathlib import Path
from typing import BinaryIO

from mpilayer.errors import CheckpointError

_MARK = b"\nmpilayer sha256 "
_LENGTH = len(_MARK) + 64 + 1
_BLOCK = 1 << 20


def of(content: bytes) -> bytes:
    """Return what is appended to the content of a file."""
    return _MARK + hashlib.sha256(content).hexdigest().encode() + b"\n"


def check(path: Path) -> bool:
    """Check that a file's bytes are those that were sealed. Local.

    Returns
    -------
    bool
        They are; or there is no seal, and nobody knows.

    Raises
    ------
    CheckpointError
        They are not.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        size = path.stat().st_size - _LENGTH
        if size < 0:
            return False
        file.seek(size)
        sealed = file.read()
        if not sealed.startswith(_MARK):
            return False
        file.seek(0)
        stored, found = sealed[len(_MARK) :].strip(), _digest(file, size)
    if stored != found:
        raise CheckpointError(
            f"{path} must hold what was written; its digest is {_short(found)} instead "
            f"of {_short(stored)}. The file is damaged: use a copy, or make it again."
        )
    return True


def _digest(file: BinaryIO, size: int) -> bytes:
    """Return the SHA-256 of so many bytes in hexadecimal; move behind them."""
    hasher, left = hashlib.sha256(), size
    while block := file.read(min(_BLOCK, left)):
        hasher.update(block)
        left -= len(block)
    return hasher.hexdigest().encode()


def _short(digest: bytes) -> str:
    return digest[:12].decode(errors="replace")
