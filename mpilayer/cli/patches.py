"""``mpilayer data patches``: patches of images, perhaps whitened, as a data set."""

import argparse
from pathlib import Path

import numpy as np

from mpilayer.data.dataset import write_dataset
from mpilayer.data.images import Images, read_images
from mpilayer.data.patches import draw, into_range, n_positions, whiten
from mpilayer.data.split import Split
from mpilayer.errors import ConfigError

Range = tuple[float, float]

_RAW = "raw"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that only this command has."""
    parser.description = (
        "Draw square patches from images, each from another position, as the rows of a "
        "data set."
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        type=Path,
        help="folder of image files, or a .h5 (dataset 'images'), .mat, .npy file",
    )
    parser.add_argument(
        "--count",
        metavar="N",
        type=int,
        default=100_000,
        help="training patches to draw (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        metavar="PIXELS",
        type=int,
        default=8,
        help="height and width of a patch (default: %(default)s)",
    )
    parser.add_argument(
        "--whiten",
        action="store_true",
        help="flatten the images' spectrum first, as Olshausen and Field do",
    )
    parser.add_argument(
        "--range",
        metavar="raw|LOW,HIGH",
        default=_RAW,
        help="LOW,HIGH: subtract each patch's mean, truncate at 3 standard deviations, "
        "scale to that range; 0.1,0.9 suits sigmoid units. A negative LOW needs "
        "--range=LOW,HIGH (default: raw, as they are)",
    )


def check(args: argparse.Namespace) -> None:
    """Refuse, before anything is read, what no images could give."""
    for option in ("count", "size"):
        value = getattr(args, option)
        if value < 1:
            raise ConfigError(f"--{option} must be 1 or more; got {value}.")
    _range(args.range)
    if args.source.resolve() == args.output.resolve():
        raise ConfigError(
            f"--output must be another file than SOURCE; got {args.output} for both. "
            "Choose another name."
        )


def write(args: argparse.Namespace) -> None:
    """Read the images, draw the patches, write the data set."""
    images = read_images(args.source)
    # Whitening a lot of images takes a while; a size that does not fit, none.
    n_positions(images.x.shape, args.size)
    x = whiten(images.x) if args.whiten else images.x
    train, validation = draw(x, args.size, args.count, args.validation, args.seed)
    limits = _range(args.range)
    if limits is not None:
        into_range(train, validation, *limits)
    splits = {"train": Split(train)}
    if args.validation:
        splits["validation"] = Split(validation)
    write_dataset(
        args.output,
        splits,
        name=args.name or images.name,
        origin=_origin(images, args),
        scale=1.0,
    )


def _range(text: str) -> Range | None:
    """Return LOW and HIGH, or None for patches as they are."""
    if text == _RAW:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = np.nan
    with np.errstate(over="ignore"):
        in_float32 = np.array([low, high]).astype(np.float32)
    if not (np.isfinite(in_float32).all() and in_float32[0] < in_float32[1]):
        raise ConfigError(
            f"--range must be {_RAW}, or two numbers LOW,HIGH with LOW below HIGH; "
            f"got {text!r}. Try 0.1,0.9."
        )
    return low, high


def _origin(images: Images, args: argparse.Namespace) -> str:
    """Return in words what was done."""
    n_images, height, width = images.x.shape
    size = f"{args.size} x {args.size}"
    more = f" and {args.validation} for validation" if args.validation else ""
    whitened = "whitened, " if args.whiten else ""
    return (
        f"{args.count} patches of {size}{more} from {images.origin} "
        f"({n_images} images of {height} x {width}), seed {args.seed}, {whitened}"
        f"range {args.range}"
    )
