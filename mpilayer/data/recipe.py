"""How a data set is made of a source, as its configuration says. One process."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mpilayer.config import DataConfig
from mpilayer.data.dataset import PIXEL_SCALE, write_dataset
from mpilayer.data.images import read_images
from mpilayer.data.patches import draw, into_range, n_positions, whiten
from mpilayer.data.preparation import Preparation, Scaling
from mpilayer.data.sources import Names, Source, read_source
from mpilayer.data.split import Split, set_apart
from mpilayer.data.table import Progress, Unit, Values, counted, to_float32
from mpilayer.errors import ConfigError, DataError, RunWarning
from mpilayer.words import few

_LISTED = 5
_RAW = "raw"  # the range of patches that stay as they are


@dataclass(frozen=True)
class Like:
    """How a data set was prepared that others are to be like."""

    path: Path
    n_visible: int
    preparation: Preparation

    def check(self, source: Source, path: Path) -> None:
        """Check that a source, read from ``path``, has the same columns."""
        n_columns = source.splits["train"].x.shape[1]
        if n_columns != self.n_visible:
            raise DataError(
                f"{path} must have as many columns of samples as {self.path}, "
                f"{self.n_visible}; found {n_columns}. Give the same columns."
            )
        source.preparation.check_columns(path, self.preparation, self.path)


def make_data(
    config: DataConfig,
    out: Path,
    like: Like | None = None,
    others: Sequence[Path] = (),
    progress: Progress = lambda *_: None,
) -> None:
    """Write a data set as the configuration says, ``like`` what it names. Local.

    Rows of ``others`` follow on those of the source that it names.
    """
    if config.make == "patches":
        _patches(config, out)
    else:
        _prepare(config, out, like, others, progress)


def patch_range(text: str) -> tuple[float, float] | None:
    """Return LOW and HIGH, None for patches as they are; ConfigError for others."""
    if text == _RAW:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = np.nan
    limits = to_float32(np.array([low, high]))
    if not (np.isfinite(limits).all() and limits[0] < limits[1]):
        raise ConfigError(
            f"--range must be {_RAW}, or two numbers LOW,HIGH with LOW below HIGH; "
            f"got {text!r}. Try 0.1,0.9."
        )
    return low, high


def _prepare(
    config: DataConfig,
    out: Path,
    like: Like | None,
    others: Sequence[Path],
    progress: Progress,
) -> None:
    if config.like and config.scale != "none":
        raise ConfigError(
            f"--scale and --like exclude one another; got {config.scale} and "
            f"{config.like}, whose scaling is taken over. Leave out one of them."
        )
    if config.stored_offset and not config.stored_scale:
        raise ConfigError(
            f"--stored-offset needs --stored-scale; got {config.stored_offset:g} "
            "alone. Give both, or none."
        )
    path, names = Path(config.source), Names(config.labels, samples=config.dataset)
    if like is not None:
        before, named = like.preparation, bool(config.labels)
        column = config.labels or before.labels
        names = Names(column, named, before.classes, config.like, config.dataset)
    unit = Unit(config.stored_scale, config.stored_offset)
    told = unit if config.stored_scale else None
    with read_source(path, names, others, told, out.parent) as source:
        if like is not None:
            like.check(source, path)
        _set_apart(source, config)
        unit = source.unit
        # Bytes are scaled as they are, and are no pixels then.
        if (like or config.scale != "none") and unit == Unit(PIXEL_SCALE):
            unit = Unit()
        write_dataset(
            out,
            source.splits,
            name=config.name or source.name,
            origin=source.origin,
            **unit._asdict(),
            preparation=_scaled(source, config, like, unit, progress),
            progress=progress,
        )


def _set_apart(source: Source, config: DataConfig) -> None:
    """Take validation and test rows out of the training rows, as many as are wished.

    Of the others as many stay as are wished.
    """
    balanced, names = not config.unbalanced, source.preparation.classes
    wanted = {"validation": config.validation, "test": config.test}
    train, n_rows = source.splits["train"], len(source.splits["train"])
    if all(wanted.values()) and sum(wanted.values()) >= n_rows:
        raise ConfigError(
            "--validation and --test must leave rows for training; asked for "
            f"{config.validation} and {config.test} of {n_rows}. Take fewer."
        )
    for split, n in wanted.items():
        if n and split in source.splits:
            found = len(source.splits[split])
            raise ConfigError(
                f"{config.source} has {found} {split} rows of its own. Leave out "
                f"--{split}."
            )
        if n:
            train, source.splits[split] = set_apart(
                train, n, config.seed, split, balanced, names
            )
    if config.rows:
        _, train = set_apart(train, config.rows, config.seed, "train", balanced, names)
    source.splits["train"] = train


def _scaled(
    source: Source,
    config: DataConfig,
    like: Like | None,
    unit: Unit,
    progress: Progress,
) -> Preparation:
    """Return how the values are scaled besides all else: by the training rows."""
    before, method = source.preparation, config.scale
    if before.scaling and (like or method != "none"):
        raise ConfigError(
            f"--{'like' if like else 'scale'} scales what is not scaled yet; "
            f"{config.source} is, by {before.scaling.method}. Leave it out, or prepare "
            "the data from their source."
        )
    if like:
        return replace(before, scaling=like.preparation.scaling)
    if method == "none":
        return before
    train = source.splits["train"].x
    n_bytes = train.nbytes * (2 if method == "standard" else 1)
    read = counted(progress, "measuring", n_bytes)
    scaling, constant = Scaling.fit(method, Values(train, unit, read))
    if constant:
        names = [before.columns[k] if before.columns else str(k + 1) for k in constant]
        warnings.warn(
            f"{len(names)} of {train.shape[1]} columns are the same in all training "
            f"rows and become 0: {few(names, _LISTED)}. They tell nothing; you may "
            "leave them out.",
            RunWarning,
            stacklevel=2,
        )
    return replace(before, scaling=scaling)


def _patches(config: DataConfig, out: Path) -> None:
    images = read_images(Path(config.source))
    # Whitening a lot of images takes a while; a size that does not fit, none.
    n_positions(images.x.shape, config.size)
    x = whiten(images.x) if config.whiten else images.x
    n_validation = config.validation
    train, validation = draw(x, config.size, config.count, n_validation, config.seed)
    if limits := patch_range(config.range):
        into_range(train, validation, *limits)
    splits = {"train": Split(train)}
    more = ""
    if n_validation:
        splits["validation"] = Split(validation)
        more = f" and {n_validation} for validation"
    n_images, height, width = images.x.shape
    size = f"{config.size} x {config.size}"
    whitened = "whitened, " if config.whiten else ""
    origin = (
        f"{config.count} patches of {size}{more} from {images.origin} "
        f"({n_images} images of {height} x {width}), seed {config.seed}, {whitened}"
        f"range {config.range}"
    )
    name = config.name or images.name
    write_dataset(out, splits, name=name, origin=origin, scale=1.0)
