"""One file from one URL: whole and checked, or not at all."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from mpilayer import files

_TIMEOUT = 30.0  # seconds without an answer
_PIECE = 64 * 1024
_SLOWEST = 4096.0  # bytes a second, on an average that begins after the time limit

LARGEST = 100_000_000
"""Bytes; twice as many as the largest known file has uncompressed."""

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes received and the bytes expected or None."""


class MirrorError(Exception):
    """One URL did not give the file; another one may."""


def download(
    url: str,
    path: Path,
    fault: Callable[[Path], str | None],
    progress: Progress | None = None,
) -> None:
    """Download a file; local.

    Parameters
    ----------
    url : str
        Where from; http or https.
    path : Path
        Where to. It appears, or is replaced, when the download is whole and checked.
    fault : callable
        Returns what is wrong with a downloaded file, or None.
    progress : callable, optional
        Called before the first and after every piece.

    Raises
    ------
    MirrorError
        The server refuses, fails, stops early, is too slow, or has something else.
    FileError
        The file cannot be written.
    """

    def settle(temporary: Path) -> None:
        if reason := fault(temporary):
            raise MirrorError(reason)

    with _mirror_errors():
        response = _answer(url)
    with response, files.replacing(path, settle) as temporary:
        with temporary.open("wb") as file:
            expected = response.length
            received = 0
            _check_size(expected or 0)
            _report(progress, path.name, received, expected)
            for piece in _pieces(response):
                file.write(piece)
                received += len(piece)
                _report(progress, path.name, received, expected)
        if expected is not None and received != expected:
            raise MirrorError(f"ended after {received} of {expected} bytes")


def _answer(url: str) -> HTTPResponse:
    """Return the answer of a server, whose head may not take longer than a moment.

    The time limit of a socket is one between two bytes, so another thread waits.
    """
    answers: Queue[HTTPResponse | Exception] = Queue()

    def ask() -> None:
        try:
            answers.put(urlopen(url, timeout=_TIMEOUT))
        except Exception as error:
            answers.put(error)

    Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=2 * _TIMEOUT)
    except Empty:
        raise MirrorError("timed out") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _pieces(response: HTTPResponse) -> Iterator[bytes]:
    began, received = time.monotonic(), 0
    while True:
        with _mirror_errors():
            piece = response.read1(_PIECE)
        if not piece:
            return
        received += len(piece)
        _check_size(received)
        seconds = time.monotonic() - began
        if seconds > _TIMEOUT + received / _SLOWEST:
            raise MirrorError(f"too slow: {received} bytes in {seconds:.0f} s")
        yield piece


def _check_size(n_bytes: int) -> None:
    """Refuse what no file of the catalog can be: a server may go on for ever."""
    if n_bytes > LARGEST:
        raise MirrorError(f"more than {LARGEST / 1e6:.0f} MB")


def _report(
    progress: Progress | None, name: str, received: int, expected: int | None
) -> None:
    if progress is not None:
        progress(name, received, expected)


@contextmanager
def _mirror_errors() -> Iterator[None]:
    try:
        yield
    except MirrorError:
        raise
    except HTTPError as error:
        error.close()
        raise MirrorError(f"HTTP {error.code} {error.reason}") from error
    except URLError as error:
        raise MirrorError(_reason(error.reason)) from error
    except (OSError, HTTPException, ValueError) as error:
        raise MirrorError(_reason(error)) from error


def _reason(error: object) -> str:
    """Return an error in words, without its number."""
    return str(
        getattr(error, "strerror", None) or error or type(error).__name__
    ).lower()
