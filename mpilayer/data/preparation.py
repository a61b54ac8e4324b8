"""What was made of a source's columns: names, classes, and how values are scaled.

A data set has it beside its rows, and a run that was trained on them keeps it: other
files can be prepared like them.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray, Array32, row_blocks
from mpilayer.data.table import Values
from mpilayer.errors import DataError

_DATASET = "preparation"
# Narrower columns would take factors that float32 has not.
_NARROWEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class Scaling:
    """One factor and one offset a column: a value is (raw − offset) · factor."""

    method: str  # minmax or standard
    offset: Array32  # (n_visible,), finite
    factor: Array32  # (n_visible,), finite and not 0

    @staticmethod
    def fit(method: str, rows: Array32 | Values) -> "tuple[Scaling, list[int]]":
        """Return the scaling of training rows, (n_samples, n_visible).

        ``minmax`` takes the least value of a column to 0 and its largest to 1, never
        beyond; ``standard`` its mean to 0 and its standard deviation to 1. The columns
        whose values are all the same, which become 0, are returned as well.

        DataError: a column spans more than float32 can.
        """
        blocks = row_blocks(len(rows))
        low = high = rows[:1][0]
        total = np.zeros(len(low))
        for where in blocks:
            block = rows[where]
            low = np.minimum(low, block.min(axis=0))
            high = np.maximum(high, block.max(axis=0))
            # One after the other, as in one block of all.
            total = np.concatenate([total[np.newaxis], block]).sum(axis=0)
        with np.errstate(over="ignore"):
            span = high - low
        if not np.isfinite(span).all():
            column = int(np.argmin(np.isfinite(span)))
            raise DataError(
                "the values of a column must lie no further apart than float32 can "
                f"tell; those of column {column} go from {low[column]:g} to "
                f"{high[column]:g}. Leave it out, or give it another unit."
            )
        offset, width = low, span
        if method == "standard":
            mean = total / len(rows)
            squares = np.zeros_like(mean)
            for where in blocks:
                squares += np.square(rows[where] - mean).sum(axis=0)
            with np.errstate(under="ignore"):
                offset = mean.astype(np.float32)
                width = np.sqrt(squares / len(rows)).astype(np.float32)
        constant = ~((span > _NARROWEST) & (width > _NARROWEST))
        offset = np.where(constant, low, offset)
        factor = np.reciprocal(np.where(constant, np.float32(1), width))
        if method == "minmax":
            # Sigmoid units take no value above 1, and no rounding leads there.
            factor = np.where(span * factor > 1, np.nextafter(factor, 0), factor)
        return Scaling(method, offset, factor), np.flatnonzero(constant).tolist()

    def apply(self, rows: Array32) -> None:
        """Scale rows in place."""
        rows -= self.offset
        rows *= self.factor

    def undo(self, rows: Array32) -> Array32:
        """Return what scaled rows were before."""
        raw = rows / self.factor.astype(np.float64) + self.offset
        return raw.astype(np.float32)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Scaling)
            and np.array_equal(self.offset, other.offset)
            and np.array_equal(self.factor, other.factor)
        )


@dataclass(frozen=True)
class Preparation:
    """What a source's columns are called, and what was made of them."""

    columns: tuple[str, ...] = ()  # names of the samples' columns, if they have any
    labels: str = ""  # column or array they come from; empty: the usual one, or none
    classes: tuple[str, ...] = ()  # names of label 0, 1, 2, …, if labels are texts
    scaling: Scaling | None = None  # of values when they are read

    def __bool__(self) -> bool:
        return self != Preparation()

    def to_json(self) -> dict[str, Any]:
        """Return it as an object of JSON."""
        scaling = {} if self.scaling is None else vars(self.scaling)
        values = {k: np.asarray(v).tolist() for k, v in scaling.items()}
        return {**vars(self), "scaling": values}

    @staticmethod
    def from_json(content: Any, n_visible: int, where: object) -> "Preparation":
        """Return what ``to_json`` has made; nothing of an empty object.

        DataError: anything else, or for another number of columns.
        """
        try:
            return _parsed(content, n_visible)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(
                f"{where} must say how {n_visible} columns were prepared; what it says "
                f"cannot be read ({error}). Prepare the data set again."
            ) from error

    def store(self, group: Any) -> None:
        """Write it into an HDF5 file, if it says anything."""
        if self:
            text = json.dumps(self.to_json(), allow_nan=False).encode()
            group.create_dataset(
                _DATASET, data=np.array([text]), chunks=(1,), fletcher32=True
            )

    @staticmethod
    def load(file: Any, n_visible: int, where: object) -> "Preparation":
        """Read it from an open HDF5 file, as ``from_json``; empty if there is none."""
        stored = file.get(_DATASET)
        if stored is None:
            return Preparation()
        content = None
        kind = getattr(getattr(stored, "dtype", None), "kind", "")
        if kind == "S" and stored.shape == (1,):
            with suppress(ValueError, RecursionError):
                content = json.loads(stored[0])
        return Preparation.from_json(content, n_visible, where)

    def check_columns(self, path: Path, like: "Preparation", known_from: Path) -> None:
        """Check that the columns of ``path``, as far as named, are those of another."""
        for name, found in zip(like.columns, self.columns, strict=False):
            if name.lower() != found.lower():
                raise DataError(
                    f"{path} must have the columns of {known_from} in the same order; "
                    f"found {found!r} instead of {name!r}. Put them in that order."
                )

    def names(self, classes: AnyArray) -> list[Any]:
        """Return the names of classes; of numbers themselves."""
        names = dict(enumerate(self.classes))
        return [names.get(k, k) for k in classes.tolist()]


def _parsed(content: Mapping[str, Any], n_visible: int) -> Preparation:
    columns, classes = _texts(content, "columns"), _texts(content, "classes")
    labels, stored = content.get("labels", ""), content.get("scaling") or {}
    if columns and len(columns) != n_visible:
        raise ValueError(f"{len(columns)} columns")
    if not isinstance(labels, str):
        raise TypeError("labels")
    if not stored:
        return Preparation(columns, labels, classes)
    with np.errstate(over="ignore"):
        offset, factor = (np.array(stored[k], np.float32) for k in ("offset", "factor"))
    fits = offset.shape == factor.shape == (n_visible,) and factor.all()
    finite = np.isfinite(offset).all() and np.isfinite(factor).all()
    if not (fits and finite and isinstance(stored["method"], str)):
        raise ValueError("scaling")
    scaling = Scaling(stored["method"], offset, factor)
    return Preparation(columns, labels, classes, scaling)


def _texts(content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = content.get(key, [])
    if isinstance(found, str) or not all(isinstance(one, str) for one in found):
        raise TypeError(key)
    return tuple(found)
