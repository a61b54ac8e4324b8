"""Samples in memory, and validation samples taken from the training samples."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpilayer.arrays import AnyArray, row_blocks
from mpilayer.errors import ConfigError, DataError
from mpilayer.rng import stream

_MOST_LABEL = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Split:
    """Samples in memory, checked when made.

    Parameters
    ----------
    x : ndarray, (n_samples, n_visible)
        Stays uint8 if it is; other real numbers become float32. All finite.
    labels : ndarray of integers, (n_samples,), optional
        The class of each sample.

    Raises
    ------
    DataError
        Not numbers, another shape, empty, NaN or infinite, or too few or many labels.
    """

    x: AnyArray
    labels: AnyArray | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or 0 in self.x.shape:
            raise DataError(
                "samples must be the rows of a table of at least one row and column; "
                f"found shape {self.x.shape}."
            )
        object.__setattr__(self, "x", _stored_type(self.x))
        if self.x.dtype.kind == "f":
            for block in row_blocks(len(self)):
                check_finite(self.x[block], block.start, "x")
        if self.labels is not None:
            self._check_labels(self.labels)

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def take(self, rows: npt.NDArray[np.intp]) -> "Split":
        """Return the samples of some rows, in the order given."""
        labels = None if self.labels is None else self.labels[rows]
        return Split(self.x[rows], labels)

    def _check_labels(self, labels: AnyArray) -> None:
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(
                "labels must be one integer a sample; "
                f"found {labels.dtype} of shape {labels.shape}."
            )
        if len(labels) != len(self):
            raise DataError(
                "every sample must have one label; "
                f"found {len(self)} samples and {len(labels)} labels."
            )
        as_int64(labels)


def take_validation(train: Split, n: int, seed: int) -> tuple[Split, Split]:
    """Take validation samples out of the training samples; local.

    Parameters
    ----------
    train : Split
        All training samples.
    n : int
        How many to take, at least 1 and less than all.
    seed : int
        Equal seeds take equal rows.

    Returns
    -------
    train, validation : Split
        Both in the order of the original rows. With labels, equally many samples of
        each; what remains of ``n`` goes to the first labels, one each.

    Raises
    ------
    ConfigError
        ``n`` is out of range.
    DataError
        A label has too few samples.
    """
    if not 1 <= n < len(train):
        raise ConfigError(
            "validation rows must be at least 1 and fewer than the training rows; "
            f"asked for {n} of {len(train)}."
        )
    taken = np.zeros(len(train), dtype=bool)
    rng = stream(seed, "validation")
    if train.labels is None:
        taken[rng.permutation(len(train))[:n]] = True
    else:
        taken[_balanced_rows(train.labels, n, rng)] = True
    return train.take(np.flatnonzero(~taken)), train.take(np.flatnonzero(taken))


def count_labels(labels: AnyArray) -> dict[str, int]:
    """Return how many samples have each label, in the order of the labels."""
    values, counts = np.unique(labels, return_counts=True)
    return {str(v): int(n) for v, n in zip(values, counts, strict=True)}


def whole_numbers(labels: AnyArray) -> AnyArray:
    """Return labels kept as floats as integers, if they are; others unchanged."""
    # Beyond 2**53 doubles skip integers; NaN fails the comparison.
    if labels.dtype.kind == "f" and np.all(np.abs(labels) < 2**53):
        integers = labels.astype(np.int64)
        return integers if np.array_equal(integers, labels) else labels
    return labels.astype(np.int64) if labels.dtype.kind == "b" else labels


def as_int64(labels: AnyArray) -> npt.NDArray[np.int64]:
    """Return integer labels in the type that they are compared in; refuse larger ones.

    Raises
    ------
    DataError
        A label of 2**63 or more, which would become a negative one.
    """
    if len(labels) and labels.dtype.kind == "u" and labels.max() > _MOST_LABEL:
        raise DataError(
            f"labels must lie below 2**63; found {labels.max()}. Number the classes."
        )
    return labels.astype(np.int64)


def check_finite(x: AnyArray, first_row: int, what: str, most: float = np.inf) -> None:
    """Refuse NaN, and values that are infinite or larger than they may be.

    Parameters
    ----------
    x : ndarray, (n, n_visible)
        Some rows of a table.
    first_row : int
        Where they begin in the table.
    what : str
        The table, for the message.
    most : float
        How far from 0 they may be.

    Raises
    ------
    DataError
        Names the first such value's row and column in the table.
    """
    legal = np.isfinite(x) if most == np.inf else np.abs(x) <= most
    if not legal.all():
        row, column = np.argwhere(~legal)[0]
        limit = "" if most == np.inf else f" of at most {most:g}"
        remedy = "Mend or leave out such samples"
        if np.isfinite(x[row, column]):
            remedy = "Scale the data"
        raise DataError(
            f"{what} must hold finite float32 numbers{limit}; row {first_row + row}, "
            f"column {column} is {x[row, column]}. {remedy}."
        )


def _stored_type(x: AnyArray) -> AnyArray:
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind not in "biuf":
        raise DataError(
            f"samples must be real numbers; found {x.dtype}. Convert them to float32."
        )
    # What float32 cannot hold becomes infinite here and is refused afterwards.
    with np.errstate(over="ignore"):
        return x.astype(np.float32, order="C", copy=False)


def _balanced_rows(
    labels: AnyArray, n: int, rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    values = np.unique(labels)
    each, more = divmod(n, len(values))
    chosen = []
    for i, value in enumerate(values):
        rows = np.flatnonzero(labels == value)
        wanted = each + (i < more)
        if wanted > len(rows):
            raise DataError(
                f"{n} validation rows must be balanced over {len(values)} labels: "
                f"{wanted} of label {value}; found {len(rows)}. Take fewer."
            )
        chosen.append(rng.permutation(rows)[:wanted])
    return np.concatenate(chosen)
