"""What many commands ask of their arguments, without loading NumPy."""

import argparse

from mpilayer import environment
from mpilayer.errors import ConfigError


def require_one_process(command: str) -> None:
    """Check that no launcher has started several processes.

    Raises
    ------
    ConfigError
        It has.
    """
    n_ranks = environment.launched_size()
    if n_ranks > 1:
        raise ConfigError(
            f"'mpilayer {command}' must run as one process; found {n_ranks} ranks. "
            "Start it without mpiexec."
        )


def numbers(text: str) -> tuple[int, ...]:
    """Return whole numbers that are separated by commas, for argparse."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a list of numbers; got {text!r}"
        ) from None
