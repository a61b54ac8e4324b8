"""One file from one URL: whole and checked, or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from mpilayer import files

_TIMEOUT = 30.0  # seconds without an answer
_PIECE = 64 * 1024

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
        The server refuses, fails, stops early, or has something else.
    FileError
        The file cannot be written.
    """

    def settle(temporary: Path) -> None:
        if reason := fault(temporary):
            raise MirrorError(reason)

    with _mirror_errors():
        response: HTTPResponse = urlopen(url, timeout=_TIMEOUT)
    with response, files.replacing(path, settle) as temporary:
        with temporary.open("wb") as file:
            expected = _content_length(response)
            received = 0
            _report(progress, path.name, received, expected)
            for piece in _pieces(response):
                file.write(piece)
                received += len(piece)
                _report(progress, path.name, received, expected)
        if expected is not None and received != expected:
            raise MirrorError(f"ended after {received} of {expected} bytes")


def _pieces(response: HTTPResponse) -> Iterator[bytes]:
    while True:
        with _mirror_errors():
            piece = response.read(_PIECE)
        if not piece:
            return
        yield piece


def _content_length(response: HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _report(
    progress: Progress | None, name: str, received: int, expected: int | None
) -> None:
    if progress is not None:
        progress(name, received, expected)


@contextmanager
def _mirror_errors() -> Iterator[None]:
    try:
        yield
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
