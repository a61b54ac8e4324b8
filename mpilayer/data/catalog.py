"""Known data sets: where they are distributed, and how to tell that they are whole."""

import gzip
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mpilayer.data.download import LARGEST, MirrorError, Progress, download
from mpilayer.errors import ConfigError, DataError, unknown

_PIECE = 1024 * 1024
_SCHEMES = ("http", "https")


@dataclass(frozen=True)
class RemoteFile:
    """A file as it is distributed.

    Attributes
    ----------
    name : str
        Its name, on the mirrors and here.
    checksum : str
        Algorithm and hexadecimal digest, ``"sha256:..."`` or ``"md5:..."``.
    of_content : bool
        The checksum is that of the uncompressed content: mirrors that compressed a
        file themselves have the same data in other bytes.
    """

    name: str
    checksum: str
    of_content: bool = False

    def fault(self, path: Path) -> str | None:
        """Return what is wrong with a copy of the file, or None."""
        algorithm, expected = self.checksum.split(":")
        hasher = hashlib.new(algorithm, usedforsecurity=False)
        opened = gzip.open if self.of_content else open
        n_bytes = 0
        try:
            with opened(path, "rb") as file:
                while piece := file.read(_PIECE):
                    hasher.update(piece)
                    n_bytes += len(piece)
                    if n_bytes > LARGEST:
                        return f"more than {LARGEST / 1e6:.0f} MB"
        except (EOFError, gzip.BadGzipFile, zlib.error):
            return "not a whole gzip file"
        found = hasher.hexdigest()
        if found == expected:
            return None
        return f"{algorithm} is {found[:12]} instead of {expected[:12]}"


@dataclass(frozen=True)
class KnownDataset:
    """A data set that can be fetched by name: its files, and base URLs to try."""

    files: tuple[RemoteFile, ...]
    mirrors: tuple[str, ...]


CATALOG: Mapping[str, KnownDataset] = {
    # Y. LeCun, C. Cortes, C. Burges; sums of the uncompressed files.
    "mnist": KnownDataset(
        files=(
            RemoteFile(
                "train-images-idx3-ubyte.gz",
                "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                of_content=True,
            ),
            RemoteFile(
                "train-labels-idx1-ubyte.gz",
                "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                of_content=True,
            ),
            RemoteFile(
                "t10k-images-idx3-ubyte.gz",
                "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                of_content=True,
            ),
            RemoteFile(
                "t10k-labels-idx1-ubyte.gz",
                "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                of_content=True,
            ),
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    # H. Xiao, K. Rasul, R. Vollgraf (2017), arXiv:1708.07747; sums as its README has.
    "fashion-mnist": KnownDataset(
        files=(
            RemoteFile(
                "train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"
            ),
            RemoteFile(
                "train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"
            ),
            RemoteFile(
                "t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"
            ),
            RemoteFile(
                "t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"
            ),
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/"
            "data/fashion/",
        ),
    ),
}


@dataclass(frozen=True)
class Fetched:
    """A file of a data set that is now there; ``url`` is None if it already was."""

    path: Path
    url: str | None


def fetch(
    name: str,
    folder: Path,
    mirrors: Sequence[str] = (),
    progress: Progress | None = None,
    catalog: Mapping[str, KnownDataset] = CATALOG,
) -> list[Fetched]:
    """Download the files of a known data set; local.

    Files that are already there and whole are kept. A mirror that fails, or has other
    data, is followed by the next one. A file appears whole or not at all.

    Parameters
    ----------
    name : str
        Key of ``catalog``.
    folder : Path
        Where to put the files; made if it does not exist.
    mirrors : sequence of str
        Base URLs to try before those of the catalog.
    progress : callable, optional
        Called with a file's name, the bytes received and the bytes expected or None.
    catalog : mapping of str to KnownDataset
        The known data sets.

    Returns
    -------
    list of Fetched
        One a file.

    Raises
    ------
    ConfigError
        The name is unknown, or a mirror's URL is neither http nor https.
    DataError
        All mirrors failed, each with its reason; or the folder cannot be written.
    """
    if name not in catalog:
        raise ConfigError(unknown("data set", name, catalog))
    for mirror in mirrors:
        _check_url(mirror)
    known = catalog[name]
    urls = (*mirrors, *known.mirrors)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_fetch_file(file, folder, urls, progress) for file in known.files]
    except OSError as error:
        raise DataError(
            f"{folder} must be a folder that can be written; "
            f"{str(error.strerror).lower()}. Choose another one."
        ) from error


def _fetch_file(
    file: RemoteFile, folder: Path, mirrors: Sequence[str], progress: Progress | None
) -> Fetched:
    path = folder / file.name
    if path.is_file() and file.fault(path) is None:
        return Fetched(path, None)
    reasons = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{file.name}"
        try:
            download(url, path, file.fault, progress)
        except MirrorError as error:
            reasons.append(f"  {url}: {error}")
        else:
            return Fetched(path, url)
    raise DataError(
        f"{file.name} must come from one of its mirrors; all failed:\n"
        + "\n".join(reasons)
        + "\nTry again later, or name a mirror that works with --mirror."
    )


def _check_url(mirror: str) -> None:
    try:
        parts = urlsplit(mirror)
        legal = parts.scheme in _SCHEMES and bool(parts.hostname)
    except ValueError:
        legal = False
    if not legal:
        raise ConfigError(
            f"a mirror must be a URL that begins with http:// or https://; "
            f"found {mirror!r}. A folder with the files needs no fetching: give it to "
            "'mpilayer data prepare'."
        )
