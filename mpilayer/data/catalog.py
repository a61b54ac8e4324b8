"""Known data sets, from where they are distributed: whole and checked, or not."""

import gzip
import hashlib
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from mpilayer import files
from mpilayer.data.table import Progress
from mpilayer.errors import ConfigError, DataError, check_known

_TIMEOUT = 30.0  # seconds without an answer
_SLOWEST = 4096.0  # bytes a second, on an average that begins after the time limit
_PIECE = 64 * 1024

LARGEST = 100_000_000
"""Bytes; twice as many as the largest known file has uncompressed."""


class MirrorError(Exception):
    """One URL did not give the file; another one may."""


@dataclass(frozen=True)
class KnownDataset:
    """A data set as it is distributed: its files, and base URLs to try.

    Each file has its checksum, ``"sha256:..."`` or ``"md5:..."``. It may be that
    ``of_content``, uncompressed: mirrors that compressed a file themselves have the
    same data in other bytes.
    """

    files: Mapping[str, str]
    mirrors: tuple[str, ...]
    of_content: bool = False

    def fault(self, name: str, path: Path) -> str | None:
        """Return what is wrong with a copy of a file, or None."""
        algorithm, expected = self.files[name].split(":")
        hasher = hashlib.new(algorithm, usedforsecurity=False)
        opened = gzip.open if self.of_content else open
        n_bytes = 0
        try:
            with opened(path, "rb") as file:
                while piece := file.read(_PIECE):
                    hasher.update(piece)
                    n_bytes += len(piece)
                    _check_size(n_bytes)
        except MirrorError as error:
            return str(error)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            return "not a whole gzip file"
        found = hasher.hexdigest()
        if found == expected:
            return None
        return f"{algorithm} is {found[:12]} instead of {expected[:12]}"


def _like_mnist(*checksums: str) -> dict[str, str]:
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3")
    names = [f"{part}-ubyte.gz" for part in (*parts, "t10k-labels-idx1")]
    return dict(zip(names, checksums, strict=True))


CATALOG: Mapping[str, KnownDataset] = {
    # Y. LeCun, C. Cortes, C. Burges; sums of the uncompressed files.
    "mnist": KnownDataset(
        _like_mnist(
            "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        of_content=True,
    ),
    # H. Xiao, K. Rasul, R. Vollgraf (2017), arXiv:1708.07747; sums as its README has.
    "fashion-mnist": KnownDataset(
        _like_mnist(
            "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "md5:25c81989df183df01b3e8a0aad5dffbe",
            "md5:bef4ecab320f06d8554ea6380940ec79",
            "md5:bb300cfdad3c16e7a12a480ee83cd310",
        ),
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/"
            "data/fashion/",
        ),
    ),
}


def fetch(
    name: str,
    folder: Path,
    mirrors: Sequence[str] = (),
    progress: Progress = lambda *_: None,
) -> dict[str, str]:
    """Download the files of a known data set into a folder, made if need be; local.

    Returns the URL of each file, empty for those that are already there and whole. A
    mirror that fails, or has other data, is followed by the next one, those given
    first.

    ConfigError: the name is unknown, or a mirror's URL is neither http nor https.
    DataError: all mirrors failed, each with its reason; or the folder cannot be
    written.
    """
    check_known("data set", name, CATALOG)
    for mirror in mirrors:
        _check_url(mirror)
    known = CATALOG[name]
    urls = (*mirrors, *known.mirrors)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return {
            file: _fetch_file(known, folder / file, urls, progress)
            for file in known.files
        }
    except OSError as error:
        raise DataError(
            f"{folder} must be a folder that can be written; "
            f"{str(error.strerror).lower()}. Choose another one."
        ) from error


def _fetch_file(
    known: KnownDataset, path: Path, mirrors: Sequence[str], progress: Progress
) -> str:
    if path.is_file() and known.fault(path.name, path) is None:
        return ""
    reasons = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{path.name}"
        try:
            _download(url, path, known, progress)
            return url
        except MirrorError as error:
            reasons.append(f"  {url}: {error}")
    raise DataError(
        f"{path.name} must come from one of its mirrors; all failed:\n"
        + "\n".join(reasons)
        + "\nTry again later, or name a mirror that works with --mirror."
    )


def _download(url: str, path: Path, known: KnownDataset, progress: Progress) -> None:
    """Download a file, which appears, or is replaced, when it is whole and checked."""

    def settle(temporary: Path) -> None:
        if reason := known.fault(path.name, temporary):
            raise MirrorError(reason)

    with _mirror_errors():
        response = _answer(url)
    with response, files.replacing(path, settle) as temporary:
        expected, received = response.length, 0
        _check_size(expected or 0)
        progress(path.name, received, expected)
        with temporary.open("wb") as content:
            for piece in _pieces(response):
                content.write(piece)
                received += len(piece)
                progress(path.name, received, expected)
        if expected not in (None, received):
            raise MirrorError(f"ended after {received} of {expected} bytes")


def _answer(url: str) -> HTTPResponse:
    """Return the answer of a server, whose head may not take longer than a moment.

    The time limit of a socket is one between two bytes, so another thread waits.
    """
    answer: Future[HTTPResponse] = Future()

    def ask() -> None:
        try:
            answer.set_result(urlopen(url, timeout=_TIMEOUT))
        except Exception as error:
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    wait([answer], 2 * _TIMEOUT)
    if not answer.done():
        raise MirrorError("timed out")
    return answer.result()


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


@contextmanager
def _mirror_errors() -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        error.close()
        raise MirrorError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, URLError) else error
        words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise MirrorError(str(words).lower()) from error


def _check_url(mirror: str) -> None:
    try:
        parts = urlsplit(mirror)
        legal = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        legal = False
    if not legal:
        raise ConfigError(
            f"a mirror must be a URL that begins with http:// or https://; "
            f"found {mirror!r}. A folder with the files needs no fetching: give it to "
            "'mpilayer data prepare'."
        )
