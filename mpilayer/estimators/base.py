"""What all estimators share: fitting on ranks, and the conventions of scikit-learn."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from scipy.sparse import issparse
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_array, check_is_fitted

from mpilayer.arrays import AnyArray, Array32, row_blocks
from mpilayer.errors import DataError, MpilayerError
from mpilayer.estimators.arguments import Fields, SettingError, in_arguments, plain
from mpilayer.estimators.rows import Bounds, SparseRows, current_bounds
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder
from mpilayer.numerics.parameters import Parameters
from mpilayer.parallel.comm import Communicator, SerialCommunicator, owned
from mpilayer.train.evaluate import reconstruction_error

try:
    from sklearn.utils.validation import validate_data
except ImportError:  # before scikit-learn 1.6

    def validate_data(estimator: Any, X: Any, **options: Any) -> Any:
        """Check X and note its features."""
        return estimator._validate_data(X, **options)


T = TypeVar("T")


class InputError(DataError, ValueError):
    """Rows that cannot be used; as scikit-learn expects it."""


class Reconstructor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that encodes rows and decodes codes."""

    comm: Any
    n_features_in_: int  # columns of the rows
    parameters_: dict[str, AnyArray]  # by the names they have in checkpoints
    shapes_: tuple[LayerShape, ...]  # sizes and units of the layers
    _sources: tuple[Fields, ...]
    _units: ClassVar = "visible"  # the argument on the units of the reconstruction

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Train on the rows, from the beginning. Collective with ``comm``.

        Parameters
        ----------
        X : array or sparse matrix (n_samples, n_features)
            Of this rank. Sparse rows are made dense by the minibatch or by blocks; as a
            whole where ranks exchange rows (``StackedAutoencoder``,
            ``SparseAutoencoder``).

        Raises
        ------
        SettingError, InputError
            Arguments or rows that cannot be used; on all ranks.
        TrainingError
            Weights or cost become infinite; on all ranks. Nothing is left behind.
        """
        with joined(self.comm) as comm:
            configs = checked(comm, self._configs)
            rows, bounds = self._rows_to_fit(X, comm, configs[0])
            for name in self._minibatches():
                _warn_of_minibatch(bounds[-1][1], getattr(self, name), name)
            self._train(rows, bounds, comm, *configs)
        return self

    def transform(self, X: Any) -> Array32:
        """Return the codes (n_samples, n_code) of rows, which may be sparse. Local."""
        check_is_fitted(self)
        return self._stack().encode(self._checked(X, np.float32, reset=False))

    def inverse_transform(self, X: Any) -> Array32:
        """Return the rows (n_samples, n_features) of codes. Local."""
        check_is_fitted(self)
        codes = check_array(X, dtype=np.float32, order="C")
        n_code, found = self._n_features_out, codes.shape[1]
        if found != n_code:
            raise InputError(
                f"codes must have {n_code} columns; found {found}. Give what transform "
                "returns."
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

    def _train(
        self, rows: Any, bounds: Bounds, comm: Communicator, *configs: Any
    ) -> None:
        """Train on this rank's rows, of which all ranks have ``bounds``. Collective."""
        raise NotImplementedError

    def _check_configs(self, *configs: Any) -> None:
        """Check what the configurations leave open, with their kind of errors."""

    def _minibatches(self) -> list[str]:
        """Return the arguments that say how large the minibatches of fit are."""
        return ["minibatch"]

    @property
    def _n_features_out(self) -> int:
        """Return the columns of a code; scikit-learn asks for it."""
        return self.shapes_[-1].n_hidden

    def _stack(self) -> DeepAutoencoder:
        """Return the fitted model."""
        stack, p = DeepAutoencoder(self.shapes_), self.parameters_
        arrays = list(p.values())
        if "weights" in p:  # one layer: W₁, b₁, W₂, b₂
            decoder = p.get("decode_weights", p["weights"].T)
            arrays = [p["weights"], p["hidden_bias"], decoder, p["visible_bias"]]
        for (_, view), array in zip(stack.parameters.items(), arrays, strict=True):
            view[:] = array
        return stack

    def _keep(self, shapes: Sequence[LayerShape], parameters: Parameters) -> None:
        """Make the fitted model what ``transform`` uses."""
        self.shapes_ = tuple(shapes)
        self.parameters_ = {name: view.copy() for name, view in parameters.items()}

    def _checked(self, X: Any, dtype: Any, reset: bool, n_ranks: int = 1) -> Any:
        """Return the rows, or raise what scikit-learn raises; a rank may have none."""
        least = {} if n_ranks == 1 else {"ensure_min_samples": 0}
        options: dict[str, Any] = {"dtype": dtype, "accept_sparse": "csr", "order": "C"}
        rows = validate_data(self, X, reset=reset, **options, **least)
        return SparseRows(rows) if issparse(rows) else rows

    def _rows_to_fit(
        self, X: Any, comm: Communicator, config: Any, reset: bool = True
    ) -> tuple[Any, Bounds]:
        """Return this rank's rows, and where all ranks' are. Collective."""

        def check() -> Any:
            dtype = getattr(config, "dtype", np.float32)
            rows = self._checked(X, dtype, reset, comm.size)
            if getattr(config, self._units) == "sigmoid":
                _check_range(rows)
            return rows

        rows = checked(comm, check)
        if other := comm.unlike_first((self._settings(), rows.shape[1])):
            raise SettingError(
                "all ranks must fit with the same arguments and columns; rank "
                f"{other} differs from rank 0. Give all ranks the same."
            ).of_all_ranks()
        bounds = current_bounds(comm, len(rows))
        if not bounds[-1][1]:
            raise InputError("there must be rows; no rank has any.").of_all_ranks()
        return rows, bounds

    def _settings(self) -> dict[str, Any]:
        """Return the constructor's arguments but for the communicator."""
        values = self.get_params(deep=False)
        del values["comm"]
        return {name: plain(value) for name, value in values.items()}

    def _configs(self) -> list[Any]:
        """Return the configurations that the arguments mean, checked."""
        values = self._settings()
        configs = [source.read(values) for source in self._sources]
        with in_arguments():
            self._check_configs(*configs)
        return configs

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

    One of mpi4py is duplicated meanwhile: messages do not mix with others.
    """
    if comm is None:
        yield SerialCommunicator()
    elif hasattr(comm, "start_sum"):
        yield comm
    else:
        # Only here: without a communicator mpi4py is not needed.
        from mpilayer.parallel.mpi import MPICommunicator

        with owned(MPICommunicator(comm.Dup())) as own:
            yield own


def checked(comm: Communicator, work: Callable[[], T]) -> T:
    """Do local work; what it raises on one rank, all ranks raise. Collective."""
    if comm.size == 1:
        return work()

    def attempt() -> T:
        try:
            return work()
        except (TypeError, ValueError) as error:
            if isinstance(error, MpilayerError):
                raise
            raise InputError(str(error)) from error

    return comm.everywhere(attempt)


def _warn_of_minibatch(n_rows: int, minibatch: int, name: str) -> None:
    """Warn of too large a minibatch, on all ranks: there warnings may be errors."""
    if minibatch > n_rows:
        many = f"the {n_rows} rows" if n_rows > 1 else "the only row"
        warnings.warn(
            f"{name}={minibatch} is more than {many}: every epoch is a single step. "
            f"Give a smaller {name}.",
            stacklevel=3,
        )


def _check_range(rows: Any) -> None:
    """Check that rows suit sigmoid units; raise InputError for others."""
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
