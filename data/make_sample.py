"""Write mnist-sample.h5 from a folder with MNIST's four IDX files.

Usage: python data/make_sample.py FOLDER [OUT.h5]
"""

import sys
from pathlib import Path

from mpilayer.data.array_files import read_idx_folder
from mpilayer.data.dataset import PIXEL_SCALE, write_dataset
from mpilayer.data.split import Split, set_apart

SEED = 0
N_TRAIN, N_VALIDATION, N_TEST = 5000, 1000, 1000
ORIGIN = (
    "MNIST by Y. LeCun, C. Cortes and C. Burges, derived from NIST; CC BY-SA 3.0; "
    "chosen by data/make_sample.py"
)


def make_sample(folder: Path, path: Path) -> None:
    """Write the sample; equal folders give equal digests."""
    mnist = read_idx_folder(folder)
    _, chosen = set_apart(mnist["train"], N_TRAIN + N_VALIDATION, SEED)
    train, validation = set_apart(chosen, N_VALIDATION, SEED)
    _, test = set_apart(mnist["test"], N_TEST, SEED)
    splits: dict[str, Split] = {"train": train, "validation": validation, "test": test}
    write_dataset(path, splits, name="mnist-sample", origin=ORIGIN, scale=PIXEL_SCALE)


if __name__ == "__main__":
    default = Path(__file__).with_name("mnist-sample.h5")
    make_sample(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else default)
