"""Write natural-sample.h5 from photographs of other packages; data/README.md has them.

Usage: python data/make_natural_sample.py OUT.h5 FILE...
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mpilayer import hdf5

WIDTH = 256


@dataclass(frozen=True)
class Photograph:
    """A file, how to tell it, and the square to take from it.

    Attributes
    ----------
    name, sha256 : str
        Of the file.
    left, top, width : int
        The square, in pixels.
    author : str
        Whom to thank; all files are CC0.
    """

    name: str
    sha256: str
    left: int
    top: int
    width: int
    author: str

    def square(self, path: Path) -> np.ndarray:
        """Return the square in grey, scaled to 256 x 256 bytes."""
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise SystemExit(f"{path} is another {self.name}: its SHA-256 is {found}.")
        box = (self.left, self.top, self.left + self.width, self.top + self.width)
        with Image.open(path) as image:
            grey = image.convert("L").crop(box)
        return np.asarray(grey.resize((WIDTH, WIDTH), Image.Resampling.LANCZOS))


PHOTOGRAPHS = (
    Photograph(
        "chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        *(20, 0, 300),
        "Stefan van der Walt",
    ),
    Photograph(
        "grass.png",
        "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
        *(128, 128, 256),
        "linolafett",
    ),
    Photograph(
        "gravel.png",
        "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
        *(128, 128, 256),
        "CC0Textures",
    ),
    Photograph(
        "coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        *(200, 0, 400),
        "Rachel Michetti",
    ),
    Photograph(
        "seeding_by_Clements_Engelhardt.jpg",
        "a5634d1ab5e41a3568e92d4a894a500c92b891f9ff734e50bd224d6e185a605f",
        *(600, 150, 2048),
        "Clemens Engelhardt",
    ),
)


def make_sample(path: Path, files: Sequence[Path]) -> None:
    """Write the sample; equal files give equal digests."""
    given = {file.name: file for file in files}
    missing = [photo.name for photo in PHOTOGRAPHS if photo.name not in given]
    if missing:
        raise SystemExit(f"give the files {', '.join(missing)}, too.")
    with hdf5.create(path, kind="mpilayer-images", version=1) as file:
        squares = [photo.square(given[photo.name]) for photo in PHOTOGRAPHS]
        images = file.create_dataset(
            "images",
            data=np.stack(squares),
            chunks=(1, WIDTH, WIDTH),
            compression="gzip",
            compression_opts=9,
        )
        images.attrs["files"] = [photo.name for photo in PHOTOGRAPHS]
        images.attrs["authors"] = [photo.author for photo in PHOTOGRAPHS]
        file.attrs["origin"] = (
            "photographs of scikit-image 0.26.0 and lomiri-wallpapers-16.04 20.04.0-2; "
            "grey, cropped and scaled by data/make_natural_sample.py"
        )
        file.attrs["licence"] = "CC0 1.0"


if __name__ == "__main__":
    make_sample(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
