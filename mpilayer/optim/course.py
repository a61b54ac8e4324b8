"""The course of a learning rate over a training; pure numbers."""

from math import cos, pi

from mpilayer.errors import ConfigError

BY_THE_END = ("cosine", "linear")
"""Courses of which every rate depends on how long the training is."""


def check_length(schedule: str, before: int, now: int) -> None:
    """Check that a longer or shorter training has the rates that it has had so far.

    Raises
    ------
    ConfigError
        It is one ``BY_THE_END``.
    """
    if schedule in BY_THE_END and before != now:
        raise ConfigError(
            "the number of epochs decides every rate of --learning-rate-schedule "
            f"{schedule}; --epochs was {before}, is {now}. Give {before}, or start "
            "again from the pre-trained stack with --replace."
        )


def course(
    schedule: str, done: float, total: float, decay: float = 1.0, warm_up: int = 0
) -> float:
    """Return the part of the learning rate that holds when so much is done.

    It rises linearly from 0 while ``done`` is below ``warm_up``; what follows then
    begins with 1: ``constant``; ``exponential``, times ``decay`` after every whole 1;
    ``linear`` and ``cosine``, which are 0 when ``total`` is done: Loshchilov and Hutter
    2017, equation 5, without restarts.
    """
    if done < warm_up:
        return done / warm_up
    done, total = done - warm_up, total - warm_up
    if schedule == "exponential":
        return float(decay ** int(done))
    if schedule == "cosine":
        return 0.5 * (1 + cos(pi * (done / total)))
    return 1 - done / total if schedule == "linear" else 1.0
