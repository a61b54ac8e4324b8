"""Preparing data like those that a run was trained on, and seeing whether they are."""

from dataclasses import dataclass
from pathlib import Path

from mpilayer.data.dataset import Dataset
from mpilayer.data.preparation import Preparation
from mpilayer.data.sources import Source
from mpilayer.errors import DataError
from mpilayer.models.stack import Predictor, Stack
from mpilayer.runs.directory import PREPARATION, RunDirectory
from mpilayer.runs.labels import labelled_splits


@dataclass(frozen=True)
class Like:
    """How a data set was prepared that others are to be like."""

    path: Path
    n_visible: int
    preparation: Preparation

    def check(self, source: Source, path: Path) -> None:
        """Check that a source, read from ``path``, has the same columns.

        Raises
        ------
        DataError
            It has not.
        """
        n_columns, columns = source.splits["train"].x.shape[1], self.preparation.columns
        found = source.preparation.columns
        if n_columns != self.n_visible:
            raise DataError(
                f"{path} must have as many columns of samples as {self.path}, "
                f"{self.n_visible}; found {n_columns}. Give the same columns."
            )
        differ = [
            f"{there!r} instead of {name!r}"
            for name, there in zip(columns, found, strict=False)
            if name.lower() != there.lower()
        ]
        if differ:
            raise DataError(
                f"{path} must have the columns of {self.path} in the same order; found "
                f"{differ[0]}. Put them in that order."
            )


def like_of(path: Path) -> Like:
    """Return how a data set, or that of a run, was prepared. Local.

    Raises
    ------
    MpilayerError
        It is neither, or it is damaged.
    """
    if not path.exists():
        raise DataError(
            f"--like must name a run or a data set; found nothing at {path}. Give the "
            "folder of a run, or a file such as data.h5."
        )
    if path.is_dir():
        directory = RunDirectory.open(path)
        n_visible = int(directory.read_config().get("data", {}).get("n_visible", 0))
        return Like(path, n_visible, preparation_of(directory, n_visible))
    with Dataset.open(path) as dataset:
        return Like(path, dataset.n_visible, dataset.preparation)


def preparation_of(directory: RunDirectory, n_visible: int) -> Preparation:
    """Return how the data of a run were prepared. Local.

    Raises
    ------
    MpilayerError
        What it says about that is damaged.
    """
    content = directory.read_object(PREPARATION)
    return Preparation.from_json(content, n_visible, directory.path / PREPARATION)


def check_like(dataset: Dataset, stack: Stack, directory: RunDirectory) -> None:
    """Check that data are of the kind that a run was trained on. Local.

    Raises
    ------
    DataError
        Other columns, scaled in another way, or labels of other classes.
    """
    n_visible = stack.shapes[0].n_visible
    if dataset.n_visible != n_visible:
        raise DataError(
            f"the data must have as many columns as the run, {n_visible}; "
            f"{dataset.path} has {dataset.n_visible}. Give data of the same kind."
        )
    wanted, found = preparation_of(directory, n_visible), dataset.preparation
    advice = (
        "Prepare them with: mpilayer data prepare SOURCE --like "
        f"{directory.path} -o OUT.h5"
    )
    if wanted.scaling != found.scaling:
        raise DataError(
            f"{dataset.path} must have the scaling of the run's data, "
            f"{_method(wanted)}; found {_method(found)}. {advice}"
        )
    named = isinstance(stack, Predictor) and labelled_splits(dataset)
    if named and wanted.classes != found.classes:
        raise DataError(
            f"the classes must be those of the run, {_listed(wanted.classes)}; "
            f"{dataset.path} has {_listed(found.classes)}. {advice}"
        )


def _method(preparation: Preparation) -> str:
    if preparation.scaling is None:
        return "none"
    digits = preparation.scaling.offset[:2].tolist()
    more = ", …" if len(preparation.scaling.offset) > 2 else ""
    shown = ", ".join(f"{offset:g}" for offset in digits)
    return f"{preparation.scaling.method} with offsets {shown}{more}"


def _listed(classes: tuple[str, ...]) -> str:
    return ", ".join(classes) or "numbers"
