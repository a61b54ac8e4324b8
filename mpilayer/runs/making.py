"""Making data sets, for their commands and for whole experiments. One process."""

from pathlib import Path

import numpy as np

from mpilayer.config import DataConfig
from mpilayer.data.dataset import write_dataset
from mpilayer.data.images import Images, read_images
from mpilayer.data.patches import draw, into_range, n_positions, whiten
from mpilayer.data.sources import Source, read_source
from mpilayer.data.split import Split, take_validation
from mpilayer.errors import ConfigError

Range = tuple[float, float]

RAW = "raw"
"""The range of patches that stay as they are."""


def make_data(config: DataConfig, out: Path) -> None:
    """Write a data set as the configuration says, but for its path. Local.

    Raises
    ------
    MpilayerError
        The source is missing or unsuitable, or ``out`` cannot be written.
    """
    work = {"prepare": _prepare, "patches": _patches}[config.make]
    work(config, out)


def patch_range(text: str) -> Range | None:
    """Return LOW and HIGH, or None for patches as they are.

    Raises
    ------
    ConfigError
        It is neither ``raw`` nor two such numbers.
    """
    if text == RAW:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = np.nan
    with np.errstate(over="ignore"):
        in_float32 = np.array([low, high]).astype(np.float32)
    if not (np.isfinite(in_float32).all() and in_float32[0] < in_float32[1]):
        raise ConfigError(
            f"--range must be {RAW}, or two numbers LOW,HIGH with LOW below HIGH; "
            f"got {text!r}. Try 0.1,0.9."
        )
    return low, high


def _prepare(config: DataConfig, out: Path) -> None:
    source = _with_validation(read_source(Path(config.source)), config)
    write_dataset(
        out,
        source.splits,
        name=config.name or source.name,
        origin=source.origin,
        scale=source.scale,
    )


def _with_validation(source: Source, config: DataConfig) -> Source:
    if config.validation == 0:
        return source
    if "validation" in source.splits:
        n = len(source.splits["validation"])
        raise ConfigError(
            f"{config.source} has {n} validation rows of its own. Leave out "
            "--validation."
        )
    train = source.splits["train"]
    train, validation = take_validation(train, config.validation, config.seed)
    source.splits.update(train=train, validation=validation)
    return source


def _patches(config: DataConfig, out: Path) -> None:
    images = read_images(Path(config.source))
    # Whitening a lot of images takes a while; a size that does not fit, none.
    n_positions(images.x.shape, config.size)
    x = whiten(images.x) if config.whiten else images.x
    train, validation = draw(
        x, config.size, config.count, config.validation, config.seed
    )
    limits = patch_range(config.range)
    if limits is not None:
        into_range(train, validation, *limits)
    splits = {"train": Split(train)}
    if config.validation:
        splits["validation"] = Split(validation)
    write_dataset(
        out,
        splits,
        name=config.name or images.name,
        origin=_origin(images, config),
        scale=1.0,
    )


def _origin(images: Images, config: DataConfig) -> str:
    """Return in words what was done."""
    n_images, height, width = images.x.shape
    size = f"{config.size} x {config.size}"
    more = f" and {config.validation} for validation" if config.validation else ""
    whitened = "whitened, " if config.whiten else ""
    return (
        f"{config.count} patches of {size}{more} from {images.origin} "
        f"({n_images} images of {height} x {width}), seed {config.seed}, {whitened}"
        f"range {config.range}"
    )
