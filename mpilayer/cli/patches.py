"""``mpilayer data patches``: patches of images, perhaps whitened, as a data set."""

import argparse
from pathlib import Path

from mpilayer.config import DataConfig
from mpilayer.data.recipe import RAW, make_data, patch_range
from mpilayer.errors import ConfigError


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
        default=RAW,
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
    patch_range(args.range)
    if args.source.resolve() == args.output.resolve():
        raise ConfigError(
            f"-o/--output must be another file than SOURCE; got {args.output} for "
            "both. Choose another name."
        )


def write(args: argparse.Namespace) -> None:
    """Read the images, draw the patches, write the data set."""
    config = DataConfig(
        source=str(args.source),
        make="patches",
        validation=args.validation,
        seed=args.seed,
        name=args.name or "",
        count=args.count,
        size=args.size,
        whiten=args.whiten,
        range=args.range,
    )
    make_data(config, args.output)
