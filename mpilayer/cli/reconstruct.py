"""``mpilayer reconstruct``: write the reconstructions of a data set."""

import argparse

from mpilayer.cli.encode import add_arguments as configure
from mpilayer.cli.encode import write
from mpilayer.runs.use import reconstruct

__all__ = ["configure", "run"]


def run(args: argparse.Namespace) -> None:
    """Reconstruct every split, or one."""
    write("reconstruct", args, reconstruct)
