"""Files of arrays: NumPy's, and MATLAB's, which a process of its own reads.

SciPy's reader crashes on damaged files.
"""

import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from mpilayer import memory
from mpilayer.arrays import AnyArray
from mpilayer.errors import DataError, reading

_MATLAB = ("a whole MATLAB file", "Save or copy it again.")


def load_npy(path: Path) -> AnyArray:
    """Return the array of a ``.npy`` file; DataError if it is damaged or an archive."""
    with _numpy_file(path) as file:
        array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} must hold one array; found several. Name it .npz.")
    return array


def load_npz(path: Path) -> dict[str, AnyArray]:
    """Return the arrays of an ``.npz`` file; DataError if it is damaged or none."""
    with _numpy_file(path) as file:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            raise DataError(f"{path} must hold named arrays; found one. Name it .npy.")
        memory.demand(sum(part.file_size for part in content.zip.infolist()), path)
        return {name: content[name] for name in content.files}


def load_mat(path: Path) -> dict[str, Any]:
    """Return the variables of a ``.mat`` file, in the types they have in MATLAB.

    DataError: damaged, of version 7.3, complex numbers, or too large for the memory.
    """
    command = (sys.executable, "-P", "-m", __name__, str(path))
    # The same modules as here, whatever led to them.
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with reading(path, *_MATLAB), child:
        assert child.stdout is not None
        try:
            answer: dict[str, Any] | str = pickle.load(child.stdout)
        except (EOFError, pickle.UnpicklingError):
            what, advice = _MATLAB
            answer = f"{path} must be {what}; SciPy fails on it. {advice}"
    if isinstance(answer, str):
        raise DataError(answer)
    return answer


def shapes(arrays: Mapping[str, object]) -> str:
    """Return names and shapes in words, for a message."""
    found = [f"{name} {getattr(a, 'shape', '')}".strip() for name, a in arrays.items()]
    return ", ".join(found) or "nothing"


@contextmanager
def _numpy_file(path: Path) -> Iterator[IO[bytes]]:
    what = "a whole NumPy file of plain numbers"
    with (
        reading(path, what, "Save it again, without Python objects."),
        # NumPy says more of old or damaged headers than a user can mend.
        warnings.catch_warnings(action="ignore"),
        path.open("rb") as file,
    ):
        memory.demand(path.stat().st_size, path)
        yield file


def _variables(path: Path) -> dict[str, Any]:
    import scipy.io

    try:
        with reading(path, *_MATLAB):
            # SciPy would drop imaginary parts with no more than this warning.
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            # MATLAB saves doubles that happen to be whole as bytes, which would pass
            # for pixels; mat_dtype undoes that.
            content = scipy.io.loadmat(path, mat_dtype=True)
    except DataError as error:
        if isinstance(error.__cause__, NotImplementedError):
            must = "be a MATLAB file of version 7 or older; found version 7.3"
            advice = "Save it in MATLAB with save(..., '-v7')"
        elif isinstance(error.__cause__, np.exceptions.ComplexWarning):
            must = "hold real numbers; found complex ones"
            advice = "Save their real part"
        else:
            raise
        raise DataError(f"{path} must {must}. {advice}.") from error
    return {name: a for name, a in content.items() if not name.startswith("__")}


if __name__ == "__main__":
    # What is in the file, or what is wrong with it.
    memory.limit_process()
    answer: dict[str, Any] | str
    try:
        answer = _variables(Path(sys.argv[1]))
    except DataError as error:
        answer = str(error)
    pickle.dump(answer, sys.stdout.buffer, protocol=5)
