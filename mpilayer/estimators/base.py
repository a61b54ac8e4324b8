"""What all estimators share: settings, checks, and the conventions of scikit-learn."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Self, TypeVar

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_array, check_is_fitted

from mpilayer.arrays import AnyArray, Array32, row_blocks
from mpilayer.config import Config, FieldError, from_values
from mpilayer.errors import ConfigError, DataError, MpilayerError
from mpilayer.estimators.rows import as_rows
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.numerics.parameters import Parameters
from mpilayer.parallel.comm import Communicator, SerialCommunicator
from mpilayer.train.evaluate import reconstruction_error

try:
    from sklearn.utils.validation import validate_data
except ImportError:  # before scikit-learn 1.6

    def validate_data(estimator: Any, X: Any, **options: Any) -> Any:
        """Check X and note its features."""
        return estimator._validate_data(X, **options)


T = TypeVar("T")

NO_NAMES: Mapping[str, str] = {}


class SettingError(ConfigError, ValueError):
    """A constructor argument out of its range; as scikit-learn expects it."""


class InputError(DataError, ValueError):
    """Rows that cannot be used; as scikit-learn expects it."""


class Reconstructor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that encodes rows and decodes codes.

    Attributes
    ----------
    n_features_in_ : int
        Columns of the rows.
    parameters_ : dict of str to ndarray
        Weights and biases by the names they have in checkpoints.
    shapes_ : tuple of LayerShape
        Sizes and units of the layers.
    """

    comm: Any
    n_features_in_: int
    parameters_: dict[str, AnyArray]
    shapes_: tuple[LayerShape, ...]

    def transform(self, X: Any) -> Array32:
        """Return the codes of rows. Local.

        Parameters
        ----------
        X : array or sparse matrix (n_samples, n_features)
            Made dense by blocks.

        Returns
        -------
        ndarray of float32 (n_samples, n_code)
        """
        check_is_fitted(self)
        return self._stack().encode(self._checked(X, np.float32, reset=False))

    def inverse_transform(self, X: Any) -> Array32:
        """Return the rows of codes. Local.

        Parameters
        ----------
        X : array (n_samples, n_code)

        Returns
        -------
        ndarray of float32 (n_samples, n_features)
        """
        check_is_fitted(self)
        codes = check_array(X, dtype=np.float32, order="C")
        if codes.shape[1] != self._n_features_out:
            raise InputError(
                f"codes must have {self._n_features_out} columns; found "
                f"{codes.shape[1]}. Give what transform returns."
            )
        return self._stack().decode(codes)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002
        """Return minus the reconstruction error: the greater, the better.

        The error is Σ over columns of (x − x̂)², mean over rows. With ``comm`` it is
        that of the rows of all ranks: collective.
        """
        check_is_fitted(self)
        with joined(self.comm) as comm:
            rows = checked(comm, lambda: self._checked(X, np.float32, False, comm.size))
            blocks = (rows[where] for where in row_blocks(len(rows)))
            return -reconstruction_error(self._stack(), blocks, comm)

    @property
    def _n_features_out(self) -> int:
        """Return the columns of a code."""
        return self.shapes_[-1].n_hidden

    def _stack(self) -> DeepAutoencoder:
        """Return the fitted model."""
        stack, p = DeepAutoencoder(self.shapes_), self.parameters_
        found = p if "weights_0" in p else _unrolled(p)
        for name, view in stack.parameters.items():
            view[:] = found[name]
        return stack

    def _keep(self, shapes: Sequence[LayerShape], parameters: Parameters) -> None:
        """Make the fitted model what ``transform`` uses."""
        self.shapes_ = tuple(shapes)
        self.parameters_ = {name: view.copy() for name, view in parameters.items()}

    def _checked(self, X: Any, dtype: Any, reset: bool, n_ranks: int = 1) -> Any:
        """Return the rows, or raise what scikit-learn raises; a rank may have none."""
        least = {} if n_ranks == 1 else {"ensure_min_samples": 0}
        options: dict[str, Any] = {"dtype": dtype, "accept_sparse": "csr", "order": "C"}
        return as_rows(validate_data(self, X, reset=reset, **options, **least))

    def _rows_to_fit(
        self, X: Any, comm: Communicator, visible: str, dtype: Any, reset: bool = True
    ) -> Any:
        """Return this rank's rows, checked on all ranks. Collective."""

        def check() -> Any:
            rows = self._checked(X, dtype, reset, comm.size)
            _check_range(rows, visible)
            return rows

        rows = checked(comm, check)
        _check_agreement(comm, self._settings(), rows.shape[1])
        if not any(comm.allgather(len(rows))):
            raise _collective(InputError("there must be rows; no rank has any."))
        return rows

    def _settings(self) -> dict[str, Any]:
        """Return the constructor's arguments but for the communicator."""
        values = self.get_params(deep=False)
        del values["comm"]
        return {name: _plain(value) for name, value in values.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: communicators belong to a process."""
        return {**super().__getstate__(), "comm": None}

    def __sklearn_clone__(self) -> Self:
        """Return an unfitted estimator on the same communicator."""
        twin: Self = super(Reconstructor, copy(self)).__sklearn_clone__()
        twin.comm = self.comm
        return twin

    def __sklearn_tags__(self) -> Any:
        """Say that sparse rows are welcome, and codes float32."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = []
        return tags


@contextmanager
def joined(comm: Any) -> Iterator[Communicator]:
    """Give the communicator that a constructor's ``comm`` means. Collective.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, Communicator or None
        That of mpi4py is duplicated meanwhile, so that messages do not mix with others.
    """
    if comm is None:
        yield SerialCommunicator()
    elif hasattr(comm, "start_sum"):
        yield comm
    else:
        # Only here: without a communicator mpi4py is not needed.
        from mpilayer.parallel.mpi import MPICommunicator

        own = comm.Dup()
        try:
            yield MPICommunicator(own)
        except MpilayerError as error:
            if error.collective:
                own.Free()
            raise
        own.Free()


def checked(comm: Communicator, work: Callable[[], T]) -> T:
    """Do local work; what it raises on one rank, all ranks raise. Collective."""
    if comm.size == 1:
        return work()

    def attempt() -> T:
        try:
            return work()
        except MpilayerError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(str(error)) from error

    return comm.everywhere(attempt)


def settings(
    kind: type[Config], values: Mapping[str, Any], names: Mapping[str, str] = NO_NAMES
) -> Config:
    """Return a configuration from constructor arguments of Python's own types.

    Parameters
    ----------
    kind : type
        Of the configuration.
    values : mapping
        By field.
    names : mapping of str to str
        Fields that are called otherwise as arguments.

    Raises
    ------
    SettingError
        In the words of the constructor, not of the command line.
    """
    try:
        return from_values(kind, values)
    except ConfigError as error:
        raise in_arguments(error, names) from error


def in_arguments(error: Exception, names: Mapping[str, str] = NO_NAMES) -> SettingError:
    """Return a setting's error with names of arguments instead of flags and fields."""
    text = re.sub(
        "--([a-z]+(?:-[a-z]+)*)", lambda flag: flag[1].replace("-", "_"), str(error)
    )
    key = error.key if isinstance(error, FieldError) else ""
    if key in names:
        text = re.sub(rf"\b{key}\b", names[key], text)
    return SettingError(text)


def warn_of_minibatch(n_rows: int, minibatch: int, name: str = "minibatch") -> None:
    """Warn of a minibatch that is larger than the rows of all ranks together.

    On all ranks: where warnings are errors, none may go on alone.
    """
    if minibatch > n_rows:
        many = f"the {n_rows} rows" if n_rows > 1 else "the only row"
        warnings.warn(
            f"{name}={minibatch} is more than {many}: every epoch is a single step. "
            f"Give a smaller {name}.",
            stacklevel=3,
        )


def _unrolled(layer: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Return one layer's parameters by the names of a stack."""
    return {
        "weights_0": layer["weights"],
        "bias_0": layer["hidden_bias"],
        "weights_1": layer.get("decode_weights", layer["weights"].T),
        "bias_1": layer["visible_bias"],
    }


def _plain(value: Any) -> Any:
    """Return a value of Python's own types: lists as tuples, no NumPy numbers."""
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(_plain(entry) for entry in value)
    return value.item() if isinstance(value, np.generic) else value


def _check_range(rows: Any, visible: str) -> None:
    """Check that rows suit the visible units.

    Raises
    ------
    InputError
        Sigmoid units with values outside [0, 1].
    """
    if visible != "sigmoid" or not len(rows):
        return
    least = most = 0.5
    for where in row_blocks(len(rows)):
        block = rows[where]
        least, most = min(least, float(block.min())), max(most, float(block.max()))
    if least < 0 or most > 1:
        raise InputError(
            f"sigmoid visible units need data in [0, 1]; found {least:g} to {most:g}. "
            "Scale the data (sklearn.preprocessing.MinMaxScaler), or choose linear "
            "visible units and a learning rate of 0.001 to 0.01."
        )


def _check_agreement(comm: Communicator, *facts: Any) -> None:
    """Check that all ranks want the same. Collective."""
    found = comm.allgather(facts)
    others = [rank for rank, theirs in enumerate(found) if theirs != found[0]]
    if others:
        raise _collective(
            SettingError(
                "all ranks must fit with the same arguments and columns; rank "
                f"{others[0]} differs from rank 0. Give all ranks the same."
            )
        )


def _collective(error: MpilayerError) -> MpilayerError:
    """Return an error that all ranks raise."""
    error.collective = True
    return error
