"""``mpilayer predict``: write what a classifier or regressor says of a data set."""

import argparse
from functools import partial

from mpilayer.cli.encode import add_arguments, write
from mpilayer.cli.options import add_task
from mpilayer.runs.use import predict


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Write the probability of each class and the most probable one, or the number "
        "that a regressor predicts, for each row of a data set. It needs no labels."
    )
    add_arguments(parser)
    add_task(parser, "who predicts")


def run(args: argparse.Namespace) -> None:
    """Predict for every split, or one."""
    write("predict", args, partial(predict, task=args.task))
