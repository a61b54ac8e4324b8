"""What was measured of a training's pieces, as numbers that JSON can hold."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from mpilayer.config import as_values, options_of
from mpilayer.errors import ConfigError
from mpilayer.runs.rows import Facts
from mpilayer.words import few

KIND, FORMAT_VERSION = "mpilayer-plan", 1
_MOST = 1e15  # of what was measured, and of its inverse: products stay finite

_FREE: Mapping[str, frozenset[str]] = {
    "pretrain": frozenset(
        {"schedule", "lag", "refresh_every", "cores", "costs", "epochs", "end"}
        | {"extra_epochs", "cut_short", "activations", "layout", "learning_rate"}
        | {"momentum", "momentum_switch", "initial_deviation", "seed"}
        | {"monitor_rows", "monitor_every"}
    ),
    "finetune": frozenset(
        {"epochs", "patience", "learning_rate", "learning_rate_decay", "seed"}
        | {"from_scratch", "learning_rate_schedule", "warm_up"}
    ),
    "sparse": frozenset(
        {"preset", "evaluations", "iterations", "gradient_norm", "decrease", "seed"}
        | {"learning_rate", "shards", "measure_every", "initial"}
    ),
}
"""Settings of each command that no piece's seconds depend on."""


@dataclass(frozen=True)
class Curve:
    """Seconds at some numbers, ascending, of ranks or rows; a power law between them.

    Beyond the last they fall as the number grows: more ranks have less each.
    """

    at: tuple[float, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in pairwise(self.at))
        if not (0 < len(self.at) == len(self.seconds) and ascending):
            raise ValueError("a curve needs ascending numbers, and as many seconds")

    def __call__(self, number: float) -> float:
        """Return the seconds at a number."""
        if number <= self.at[0]:
            return self.seconds[0]
        points = zip(self.at, self.seconds, strict=True)
        for (a, low), (b, high) in pairwise(points):
            if number <= b:
                part = math.log(number / a) / math.log(b / a)
                return float(low ** (1 - part) * high**part)
        return self.seconds[-1] * self.at[-1] / number


@dataclass(frozen=True)
class Measured:
    """Pieces of a training, and the machine on which they were timed."""

    command: str  # what trains
    data: Mapping[str, Any]  # see ``identity``
    settings: Mapping[str, Any]
    cores: int
    crowding: float  # how many times as long work takes when all cores are at it
    memory: float  # bytes a second copied
    disk: float  # bytes a second written
    spread: float  # relative deviation between rounds
    base_bytes: int  # of a process that has no rows and no weights yet
    numbers: Mapping[str, float]  # seconds by the name of a piece
    curves: Mapping[str, Curve]

    def slower(self, busy: int) -> float:
        """Return how many times as long work takes where so many ranks are at it."""
        part = (min(busy, self.cores) - 1) / max(1, self.cores - 1)
        return 1 + (self.crowding - 1) * max(0.0, part)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return what JSON has kept; ValueError, TypeError or KeyError if it is odd."""
        values = {name: content[name] for name in cls.__dataclass_fields__}
        curves = {
            str(name): Curve(_positive(own["at"]), _positive(own["seconds"]))
            for name, own in values.pop("curves").items()
        }
        numbers = {str(name): float(n) for name, n in values.pop("numbers").items()}
        speeds = ("crowding", "memory", "disk")
        values |= {n: _positive([values[n]])[0] for n in speeds}
        values |= {n: int(values[n]) for n in ("cores", "base_bytes")}
        values["spread"] = float(values["spread"])
        values |= {n: dict(values[n]) for n in ("data", "settings")}
        known = (*numbers.values(), values["spread"], values["base_bytes"])
        if values["cores"] < 1 or not all(0 <= n <= _MOST for n in known):
            raise ValueError("what was measured must be finite and not negative")
        return cls(**values, numbers=numbers, curves=curves)


def identity(facts: Facts) -> dict[str, Any]:
    """Return what must be the same data set for measurements to hold."""
    return {
        "name": facts.data_name,
        "digest": facts.data_digest,
        "n_train": facts.n_train,
        "n_validation": facts.n_validation,
        "n_visible": facts.n_visible,
    }


def read_measured(path: Path, command: str, config: Any, facts: Facts) -> Measured:
    """Return what ``plan --json`` has written, if it is for this training.

    ConfigError: it is none, of another command, data set, or other settings.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["kind"] != KIND or content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"kind {content['kind']!r} of another version")
        found = Measured.from_json(content["measured"])
    except OSError as error:
        raise no_plan(path, str(error.strerror)) from error
    except (
        *(ValueError, KeyError, TypeError, AttributeError),
        *(OverflowError, RecursionError),
    ) as error:
        raise no_plan(path, f"{type(error).__name__}: {error}") from error
    again = f"Measure again, without --measured {path}."
    if found.command != command:
        raise ConfigError(
            f"--measured must be of {command}; {path} is of {found.command}. {again}"
        )
    data = identity(facts)
    if changed := [key for key in data if found.data.get(key) != data[key]]:
        was, now = found.data.get(changed[-1]), data[changed[-1]]
        raise ConfigError(
            f"--measured must be of this data set; {path} is of one with "
            f"{changed[-1]} {str(was)[:12]}, found {str(now)[:12]}. {again}"
        )
    values = as_values(config)
    bound = [name for name in options_of(type(config)) if name not in _FREE[command]]
    if changed := [key for key in bound if found.settings.get(key) != values[key]]:
        told = [f"{k} {found.settings.get(k)}, now {values[k]}" for k in changed]
        raise ConfigError(
            f"--measured must be of these settings; {path} was measured with "
            f"{few(told, 3)}. {again}"
        )
    return found


def _positive(values: Any) -> tuple[float, ...]:
    numbers = tuple(map(float, values))
    if not all(1 / _MOST <= n <= _MOST for n in numbers):
        raise ValueError(f"seconds and speeds must be positive; found {numbers}")
    return numbers


def no_plan(path: Path, found: str) -> ConfigError:
    """Return the error for a file that is not what ``plan --json`` prints."""
    return ConfigError(
        f"--measured must be what 'mpilayer plan --json' prints; {path}: {found}. "
        "Leave it out to measure now."
    )
