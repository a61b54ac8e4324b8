"""Arrays in files of all kinds."""

import h5py
import numpy as np
import scipy.io


def save(path, **arrays):
    """Write arrays into a file of its ending, a single one into ``.npy``."""
    if path.suffix == ".mat":
        scipy.io.savemat(path, arrays)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".npy":
        np.save(path, *arrays.values())
    else:
        with h5py.File(path, "w") as file:
            file.update(arrays)
    return path
