"""Damages files as sources, and has mpilayer's command line read them.

    python -m tests.robust.damage KIND FIRST LAST

A line before each try, and the verdict behind it: a child that crashes, or is ended
because it hangs, has said at which file. Equal numbers damage alike.
"""

import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from mpilayer.cli.main import main
from mpilayer.data.dataset import PIXEL_SCALE, write_dataset
from mpilayer.data.split import Split
from tests.support.idx import write_idx_folder

_RNG = np.random.default_rng(10)
_FLOATS = _RNG.random((12, 6)).astype(np.float32)
_PIXELS = _RNG.integers(0, 256, (12, 9), dtype=np.uint8)
_LABELS = np.arange(12) % 3
_SCENES = _RNG.integers(0, 256, (3, 8, 8), dtype=np.uint8)

PREPARE = ("data", "prepare", "{source}", "-o", "{out}", "--replace")
PATCHES = ("data", "patches", "{source}", "-o", "{out}", "--replace")
PATCHES += ("--size", "4", "--count", "9")
INFO = ("data", "info", "{source}")
VERIFY = (*INFO, "--verify")


def _mat(path: Path, **options: object) -> None:
    content = {"x": _PIXELS / 3, "y": _LABELS, "made": "by hand", "rate": 0.5}
    content["parts"] = {"a": [1, 2], "b": np.array([1, "x"], object)}
    scipy.io.savemat(path, content, **options)


def _mat4(path: Path) -> None:
    scipy.io.savemat(path, {"x": _FLOATS, "y": _LABELS}, format="4")


def _npz(path: Path) -> None:
    np.savez_compressed(path, x=_FLOATS, labels=_LABELS)


def _csv(path: Path) -> None:
    table = np.column_stack([_FLOATS, _LABELS])
    np.savetxt(path, table, "%.6g", ",", header="a,b,c,d,e,f,label", comments="")


def _hdf5(path: Path, x: np.ndarray, scale: float) -> None:
    splits = {"train": Split(x, _LABELS), "test": Split(x[:4])}
    write_dataset(path, splits, name="toy", origin="made up", scale=scale)


def _images(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=_SCENES, compression="gzip")
        file["more"] = h5py.SoftLink("/images")


def _picture(path: Path) -> None:
    first, *others = (Image.fromarray(scene) for scene in _SCENES)
    several = path.suffix in (".tif", ".gif")
    more = {"save_all": True, "append_images": others} if several else {}
    if path.suffix == ".jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        more = {"exif": exif}
    first.save(path, **more)


Maker = Callable[[Path], None]
KINDS: dict[str, tuple[str, Maker, tuple[tuple[str, ...], ...]]] = {
    "npy": ("a.npy", lambda path: np.save(path, _FLOATS), (PREPARE,)),
    "npz": ("a.npz", _npz, (PREPARE,)),
    "csv": ("a.csv", _csv, (PREPARE,)),
    "mat": ("a.mat", _mat, (PREPARE,)),
    "mat-packed": ("a.mat", lambda p: _mat(p, do_compression=True), (PREPARE,)),
    "mat-4": ("a.mat", _mat4, (PREPARE,)),
    "idx": ("digits", write_idx_folder, (PREPARE,)),
    "images": ("a.h5", _images, (PATCHES,)),
    "floats": ("a.h5", lambda path: _hdf5(path, _FLOATS, 1.0), (VERIFY, INFO)),
    "pixels": ("a.h5", lambda path: _hdf5(path, _PIXELS, PIXEL_SCALE), (VERIFY, INFO)),
    **{e: (f"a.{e}", _picture, (PATCHES,)) for e in ("png", "jpg", "tif", "gif")},
    "stack": ("a.npy", lambda path: np.save(path, _SCENES), (PATCHES,)),
}
"""Name to the file, what makes it, and the commands that read it."""


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """Return a file's content with a few bytes, a stretch or the end damaged."""
    content = bytearray(whole)
    # Headers are short, and what is wrong in them leads astray.
    reach = len(content) if rng.random() < 0.4 else min(len(content), 600)
    begin = int(rng.integers(reach))
    end = begin + int(rng.integers(1, 9))
    way = rng.integers(10)
    if way < 6:
        for place in rng.integers(0, reach, rng.integers(1, 4)):
            content[place] = rng.choice([0, 1, 0x7F, 0x80, 255, rng.integers(256)])
    elif way == 6:
        content[begin:end] = rng.bytes(end - begin)
    elif way == 7:
        content[begin:end] = b"\xff" * (end - begin)
    elif way == 8:
        del content[begin:]
    else:
        content[begin:begin] = content[begin:end]
    return bytes(content)


def verdict(arguments: list[str]) -> str:
    """Return how the command line ended: ``0``, ``2``, or what is wrong with that."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    except BaseException as error:
        return f"traceback: {type(error).__name__}: {error}".replace("\n", " ")
    lines = err.getvalue().splitlines()
    if code == 2 and lines and lines[0].startswith("mpilayer: error: "):
        return "2"
    return "0" if code == 0 and not lines else f"code {code}, said {lines}"


def attempt(kind: str, number: int, folder: Path) -> list[str]:
    """Return the verdicts on one damaged file, a command each."""
    name, make, commands = KINDS[kind]
    source = folder / name
    if not source.exists():
        make(source)
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    rng = np.random.default_rng([list(KINDS).index(kind), number])
    path = files[number % len(files)]
    whole = path.read_bytes()
    path.write_bytes(damaged(whole, rng))
    words = {"source": source, "out": folder / "out.h5"}
    found = [verdict([part.format(**words) for part in c]) for c in commands]
    path.write_bytes(whole)
    return found


if __name__ == "__main__":
    chosen, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("always")
    with tempfile.TemporaryDirectory() as name:
        for n in range(first, last):
            print(f"try {n}", flush=True)
            for answer in attempt(chosen, n, Path(name)):
                print(answer, flush=True)
