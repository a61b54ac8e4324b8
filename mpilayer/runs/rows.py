"""Whether the rows of a data set fit a run and its settings."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mpilayer.arrays import AnyArray, Array32, StoredRows
from mpilayer.config import PretrainConfig, SparseConfig
from mpilayer.data.dataset import Dataset
from mpilayer.data.far import DataRows
from mpilayer.data.images import image_size
from mpilayer.data.preparation import Preparation
from mpilayer.data.recipe import Like
from mpilayer.errors import ConfigError, DataError
from mpilayer.far import FarRows
from mpilayer.models.stack import Predictor, Stack
from mpilayer.parallel.channel import Rows
from mpilayer.parallel.comm import Communicator
from mpilayer.partition import Bounds
from mpilayer.runs.directory import PREPARATION, RunDirectory
from mpilayer.train.evaluate import FarTargets, Targets, targets
from mpilayer.train.finetune import validation_rows
from mpilayer.train.layer import monitored, row_counts

Labelled: TypeAlias = tuple[
    Array32 | StoredRows | DataRows, Array32 | DataRows, tuple[Targets, Targets] | None
]
"""Rows to train on and to validate; what should come out of them, if not they."""


@dataclass(frozen=True)
class Facts:
    """What rank 0 finds out about the data for all, before anything is written."""

    n_train: int
    n_visible: int
    data_name: str
    data_digest: str
    n_validation: int = 0
    data_stamp: tuple[int, ...] = ()
    row_bytes: int = 0  # of a training row, as it is held

    def counts(self, monitor_rows: int) -> tuple[int, int, int]:
        """Return how many rows layers train on, and measure their errors on."""
        return row_counts(self.n_train, self.n_validation, monitor_rows)

    @property
    def n_bytes(self) -> int:
        """What all ranks together hold of rows to fine-tune on, if they hold all."""
        return self.n_train * self.row_bytes + 4 * self.n_validation * self.n_visible


def data_facts(data: Path, minibatch: int = 0, section: str = "") -> Facts:
    """Return what a data set says, which must have rows for a minibatch.

    Else a ConfigError speaks of the setting in a ``section`` of a file, or of the flag.
    """
    with Dataset.open(data) as dataset:
        validated = "validation" in dataset.splits
        facts = Facts(
            dataset.n_samples("train"),
            dataset.n_visible,
            dataset.name,
            dataset.digest,
            dataset.n_samples("validation") if validated else 0,
            tuple(dataset.stamp),
            dataset.held_as("train")[0].itemsize * dataset.n_visible,
        )
    if minibatch > facts.n_train:
        where, dashes = (f"in [{section}] ", "") if section else ("", "--")
        raise ConfigError(
            f"a minibatch must not be larger than the data; got {minibatch} {where}"
            f"with {facts.n_train} training rows. Give a smaller {dashes}minibatch."
        )
    return facts


def sparse_facts(data: Path, config: SparseConfig, averages: bool) -> Facts:
    """Return what the data set says, checked against the settings. Local.

    ``averages``: something is trained on the average over shards.
    """
    if config.shards and not averages:
        raise ConfigError(
            f"--shards belongs to --kl average; got {config.shards} with --kl "
            f"{config.kl}. Leave it out, or choose average."
        )
    facts = data_facts(data, config.minibatch if config.optimizer == "sgd" else 0)
    if config.shards > facts.n_train:
        raise ConfigError(
            f"every shard must have a row; got {config.shards} shards with "
            f"{facts.n_train} training rows. Give at most {facts.n_train}."
        )
    return facts


def check_range(
    rows: Array32 | StoredRows | FarRows,
    visible: str,
    path: Path,
    advice: str = "give --visible linear and a learning rate of 0.001 to 0.01",
) -> None:
    """Check that sigmoid visible units see values in [0, 1]; else a ``DataError``."""
    # Far rows are read in any case: what cannot be used is found before training.
    if len(rows) and (visible == "sigmoid" or isinstance(rows, FarRows)):
        least, most = (
            (float(rows.min()), float(rows.max()))
            if isinstance(rows, np.ndarray)
            else rows.limits()
        )
        if visible == "sigmoid" and (least < 0 or most > 1):
            raise DataError(
                f"sigmoid visible units need data in [0, 1]; {path} has {least:g} to "
                f"{most:g}. Prepare them with --scale minmax, or {advice}."
            )


def check_images(dataset: Dataset, most: int, height: int = 0, width: int = 0) -> None:
    """Check that rows are images of which a part stays if they move so many pixels.

    Without a shape they must be square. DataError: they are not.
    """
    n_visible, path = dataset.n_visible, dataset.path
    if not height:
        columns = dataset.preparation.columns
        height = width = image_size(n_visible, columns, dataset.origin)
    if height * width != n_visible or not height:
        wanted, found = "square images", ", a table's or not those of a square"
        if height:
            wanted, found = f"images of {height} x {width} pixels", ""
        raise DataError(
            f"to be shifted, rows must be {wanted}; {path} has {n_visible} "
            f"columns{found}. Say how high and wide images are with --augment "
            f"shift:{most}:HEIGHTxWIDTH, or leave it out."
        )
    if most >= min(height, width):
        raise DataError(
            f"images must not be shifted out of sight; got --augment shift:{most}, and "
            f"those of {path} are {height} x {width} pixels. Give a smaller number."
        )


# --- labels


def read_labels(
    dataset: Dataset, split: str, start: int = 0, stop: int | None = None
) -> AnyArray:
    """Return the labels of rows; a ``DataError`` says that the split has none."""
    labels = dataset.labels(split, start, stop)
    if labels is None:
        raise DataError(
            f"the {split} rows must have labels; those of {dataset.path} have none. "
            "Prepare the data set from files that have labels (--labels COLUMN), or "
            "give another --data."
        )
    return labels


def labelled_splits(dataset: Dataset) -> list[str]:
    """Return the splits that have labels."""
    return [s for s in dataset.splits if dataset.labels(s, 0, 0) is not None]


def classes_of(labels: AnyArray, task: str) -> AnyArray:
    """Return the classes that labels name, ascending; none if they are to be numbers.

    DataError: there is only one, or labels are real numbers.
    """
    if task != "classify":
        return np.empty(0, np.int64)
    if labels.dtype.kind == "f":
        raise DataError(
            "to classify, labels must be whole numbers or texts; found real numbers "
            f"such as {labels[0]:g}. Learn them with --task regress."
        )
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DataError(
            "to classify there must be at least two different labels in the training "
            f"rows; all are {classes[0]}. Prepare the data set with other labels."
        )
    return classes


def check_all_labels(dataset: Dataset, task: str) -> None:
    """Check that all splits with labels, and the training rows, can be learned."""
    classes = classes_of(read_labels(dataset, "train"), task)
    if task == "regress" and (names := dataset.preparation.classes):
        raise DataError(
            f"to regress, labels must be numbers; those of {dataset.path} are texts "
            f"such as {names[0]!r}. Learn them with --task classify."
        )
    for split in labelled_splits(dataset):
        check_labels(dataset, split, classes)


def check_labels(dataset: Dataset, split: str, classes: AnyArray) -> None:
    """Check that a split has labels, and none but of these classes."""
    targets(read_labels(dataset, split), classes, dataset.preparation.names)


def pretraining_rows(data: Path, config: PretrainConfig, far: bool) -> Rows:
    """Return the rows to train the first layer on, and those of errors. Local.

    They stay in the data set if they are ``far``.
    """
    with Dataset.open(data) as dataset:
        train = DataRows(data, "train") if far else dataset.compact_rows("train")
        check_range(train, config.visible, data)
        validation: Array32 | DataRows
        validation = np.empty((0, dataset.n_visible), np.float32)
        if "validation" in dataset.splits:
            name = "validation"
            validation = DataRows(data, name) if far else dataset.rows(name)
            # What the training rows have scaled may lie a little outside.
            if dataset.preparation.scaling is None:
                check_range(validation, config.visible, data)
        return monitored(train, validation, config.monitor_rows)


def tuning_rows(
    dataset: Dataset, stack: Stack, train: Bounds, comm: Communicator, far: bool
) -> Labelled:
    """Return rows to fine-tune on, and some to validate. Local.

    They stay in the data set if they are ``far``. Of a predictor the targets of both
    follow, of others None.
    """
    mine, path = ("train", *train), dataset.path
    rows = DataRows(path, *mine) if far else dataset.compact_rows(*mine)
    check_range(rows, stack.shapes[0].visible, dataset.path)
    predicts = isinstance(stack, Predictor)
    known = labelled_splits(dataset) if predicts else dataset.splits
    part = ("train", 0, 0)  # no rows, but all columns
    if "validation" in known:
        n_rows = dataset.n_samples("validation")
        part = ("validation", *validation_rows(n_rows, comm))
    validation = DataRows(path, *part) if far else dataset.rows(*part)
    if not isinstance(stack, Predictor):
        return rows, validation, None
    made = FarTargets if far else targets
    wanted, measured = (
        made(read_labels(dataset, *place), stack.classes) for place in (mine, part)
    )
    return rows, validation, (wanted, measured)


# --- the data set of a run


def data_of_run(directory: RunDirectory, data: Path | None) -> Path:
    """Return the data set a run was trained on, checked to be the same one. Local.

    ``data`` says where it is now; by default it is where it was. DataError: missing,
    damaged, changed, or another one.
    """
    trained_on = directory.section("data")
    path = data or Path(trained_on.get("path", ""))
    if not path.is_file():
        raise DataError(
            f"the data set of the run must be there; {path} is not a file. Say where "
            "it is now with --data FILE."
        )
    with Dataset.open(path) as dataset:
        if dataset.digest != trained_on.get("digest"):
            raise DataError(
                f"{path} must be the data set of the run, {trained_on.get('name')!r} "
                f"with digest {str(trained_on.get('digest'))[:12]}; found "
                f"{dataset.name!r} with {dataset.digest[:12]}. Give the right --data."
            )
        dataset.ensure(trained_on.get("stamp", []))
    return path


def data_to_use(directory: RunDirectory, data: Path | None) -> Path:
    """Return a data set of the user's choice, or that of a run, checked. Local."""
    if data is None:
        return data_of_run(directory, None)
    with Dataset.open(data, like=directory.path) as dataset:
        dataset.ensure()
    return data


def training_data(directory: RunDirectory, data: Path) -> Path | None:
    """Return the data set of a run: this one, where it was, or None. Local."""
    for path in (data, None):
        with suppress(DataError):
            return data_of_run(directory, path)
    return None


# --- data like those of a run


def like_of(name: str) -> Like | None:
    """Return how a data set, or that of a run, was prepared; None without a name."""
    path = Path(name)
    if not name:
        return None
    if not path.exists():
        raise DataError(
            f"--like must name a run or a data set; found nothing at {path}. Give the "
            "folder of a run, or a file such as data.h5."
        )
    if path.is_dir():
        directory = RunDirectory.open(path)
        n_visible = int(directory.section("data").get("n_visible", 0))
        return Like(path, n_visible, preparation_of(directory, n_visible))
    with Dataset.open(path) as dataset:
        return Like(path, dataset.n_visible, dataset.preparation)


def preparation_of(directory: RunDirectory, n_visible: int) -> Preparation:
    """Return how the data of a run were prepared; an error if that is damaged."""
    content = directory.read_summary(PREPARATION, strict=True)
    return Preparation.from_json(content, n_visible, directory.path / PREPARATION)


def check_like(dataset: Dataset, stack: Stack, directory: RunDirectory) -> None:
    """Check that data have the columns, scaling and classes of those of a run."""
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
        mine, theirs = (", ".join(p.classes) or "numbers" for p in (wanted, found))
        raise DataError(
            f"the classes must be those of the run, {mine}; {dataset.path} has "
            f"{theirs}. {advice}"
        )


def _method(preparation: Preparation) -> str:
    if preparation.scaling is None:
        return "none"
    offsets = preparation.scaling.offset.tolist()
    shown = [f"{offset:g}" for offset in offsets[:2]]
    if len(offsets) > 2:
        shown.append("…")
    return f"{preparation.scaling.method} with offsets {', '.join(shown)}"
