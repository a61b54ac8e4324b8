"""MATLAB files, read in a process of their own: SciPy's reader crashes on damage."""

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from mpilayer import memory
from mpilayer.errors import DataError, reading

_WHAT = "a whole MATLAB file"
_ADVICE = "Save or copy it again."


def load_mat(path: Path) -> dict[str, Any]:
    """Return the variables of a ``.mat`` file, in the types they have in MATLAB.

    Raises
    ------
    DataError
        Damaged, of version 7.3, complex numbers, or too large for the memory.
    """
    command = (sys.executable, "-P", "-m", __name__, str(path))
    # The same modules as here, whatever led to them.
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with reading(path, _WHAT, _ADVICE), child:
        assert child.stdout is not None
        try:
            answer: dict[str, Any] | str = pickle.load(child.stdout)
        except (EOFError, pickle.UnpicklingError):
            answer = f"{path} must be {_WHAT}; SciPy fails on it. {_ADVICE}"
    if isinstance(answer, str):
        raise DataError(answer)
    return answer


def _variables(path: Path) -> dict[str, Any]:
    try:
        with reading(path, _WHAT, _ADVICE):
            # SciPy would drop imaginary parts with no more than this warning.
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            # MATLAB saves doubles that happen to be whole as bytes, which would pass
            # for pixels; mat_dtype undoes that.
            content = scipy.io.loadmat(path, mat_dtype=True)
    except DataError as error:
        if isinstance(error.__cause__, NotImplementedError):
            raise DataError(
                f"{path} must be a MATLAB file of version 7 or older; found version "
                "7.3. Save it in MATLAB with save(..., '-v7')."
            ) from error
        if isinstance(error.__cause__, np.exceptions.ComplexWarning):
            raise DataError(
                f"{path} must hold real numbers; found complex ones. Save their real "
                "part."
            ) from error
        raise
    return {name: a for name, a in content.items() if not name.startswith("__")}


def _serve(path: Path) -> None:
    """Write the variables of a file, or what is wrong with it, to standard output."""
    memory.limit_process()
    answer: dict[str, Any] | str
    try:
        answer = _variables(path)
    except DataError as error:
        answer = str(error)
    pickle.dump(answer, sys.stdout.buffer, protocol=5)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
