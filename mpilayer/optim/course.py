"""The course of a learning rate over a training."""

from math import cos, pi


def course(schedule: str, done: float, total: float, warm_up: float = 0.0) -> float:
    """Return the part of the rate that holds when ``done`` of ``total`` is done."""
    if done < warm_up:
        return done / warm_up
    part = (done - warm_up) / max(total - warm_up, 1e-9)
    if schedule == "cosine":
        return 0.5 * (1 + cos(pi * min(part, 1.0)))
    if schedule == "linear":
        return max(1 - part, 0.0)
    return 1.0
