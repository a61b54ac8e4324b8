"""Fields that say their default, help and legal values once: for flags, files, checks.

:func:`option` declares a field of a dataclass; :func:`options_of` returns what it says
to all that read, check or explain such fields.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from mpilayer.errors import ConfigError, unknown
from mpilayer.memory import size_of

Value = TypeVar("Value")

# What libraries can count to.
_MOST = 2**63 - 1

NOUNS = {
    bool: ("true or false", ""),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
}
"""What values of a type are called, one and many."""

SIZES = ("all", "auto")
"""What stands in the place of a size of memory."""

_LIMITS: Mapping[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "least": ("at least", operator.ge),
    "most": ("at most", operator.le),
    "above": ("greater than", operator.gt),
    "below": ("less than", operator.lt),
}


class FieldError(ConfigError):
    """A value that the field ``key`` cannot have, in words for flags and files."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key

    @classmethod
    def of(cls, key: str, words: str) -> Self:
        """Return the error of a field, with whose name the words go on."""
        return cls(f"{key} {words}", key)


@dataclass(frozen=True)
class Option:
    """What a field has said, see :func:`option`."""

    name: str
    type: type  # of the value, or of each entry of a list
    is_list: bool  # whether it takes a tuple of values
    default: Any
    help: str
    choices: tuple[str, ...]
    limits: Mapping[str, float]
    metavar: str
    of: str
    harmless: bool
    size: bool

    @property
    def noun(self) -> str:
        """What its values are called."""
        if self.is_list:
            return "a list of texts" if self.type is str else "a list of numbers"
        return NOUNS[self.type][0]

    @property
    def range(self) -> str:
        """What its limits are, in words."""
        bounds = ((_LIMITS[key][0], bound) for key, bound in self.limits.items())
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds)

    def from_text(self, text: str) -> Any:
        """Return the value that a word of the command line means, or ValueError."""
        if self.is_list:
            return tuple(self.type(part) for part in text.split(","))
        if self.type is bool:
            return bool(("false", "true").index(text))
        return self.type(text)

    def from_file(self, value: Any) -> Any:
        """Return a value of a file: a list for a scalar, a float for an int."""
        if self.is_list:
            entries = value if isinstance(value, list | tuple) else [value]
            return tuple(map(self._as_float, entries))
        return self._as_float(value)

    def check(self, value: Any) -> None:
        """Check type and range of a value; FieldError if it is not legal."""
        if not self.is_list:
            self._check_entry(value)
            return
        if not isinstance(value, tuple) or not value:
            raise FieldError.of(self.name, f"must be {self.noun}; got {value!r}.")
        for entry in value:
            if isinstance(entry, str):
                self._check_no_list(entry)
            self._check_entry(entry)

    def _as_float(self, value: Any) -> Any:
        return float(value) if self.type is float and type(value) is int else value

    def _check_no_list(self, text: str) -> None:
        """Check that a list does not stand in a text, as on the command line."""
        with suppress(ValueError):
            meant = list(self.from_text(text))
            if meant != [text]:
                words = f"must be a list; got the text {text!r}. Write {meant}."
                raise FieldError.of(self.name, words)

    def _check_entry(self, value: Any) -> None:
        name = self.name
        if type(value) is not self.type:
            words = f"must be of type {self.type.__name__}; got {value!r}."
            raise FieldError.of(name, f"{words} Give {NOUNS[self.type][0]}.")
        if isinstance(value, int) and abs(value) > _MOST:
            raise FieldError.of(name, f"must be at most {_MOST}.")
        if self.choices and value not in self.choices:
            raise FieldError(unknown(name, str(value), self.choices), name)
        if self.size and value not in SIZES and not size_of(str(value)):
            found = f"must be a size such as 500M or 2G, {' or '.join(SIZES)}; got"
            words = f"{found} {value!r}. K, M and G are powers of 1024."
            raise FieldError.of(name, words)
        for key, bound in self.limits.items():
            words, holds = _LIMITS[key]
            if not holds(value, bound):
                found = f"must be {words} {bound}; got {value}. Change {name}."
                raise FieldError.of(name, found)


class Settings:
    """A frozen dataclass of such fields, whose type and range are checked."""

    def __post_init__(self) -> None:
        for name, item in options_of(type(self)).items():
            item.check(getattr(self, name))


def option(
    default: Any,
    help: str,
    *,
    of: str = "",
    choices: Sequence[str] = (),
    metavar: str = "",
    harmless: bool = False,
    size: bool = False,
    **limits: float,
) -> Any:
    """Return a field with help and legal values (for lists: of each entry).

    ``of`` is the only choice of another field that has a use for it, and stands before
    the help; ``metavar`` stands for the value in the help of its flag. With another
    value of what is ``harmless`` a run may go on: it decides no result. A text may be a
    ``size`` of memory, or of ``SIZES``. Limits are ``least``, ``most``, ``above`` and
    ``below``.
    """
    said = {"help": f"{of}: {help}" if of else help, "choices": tuple(choices)}
    more = {"metavar": metavar, "of": of, "harmless": harmless, "limits": limits}
    return field(default=default, metadata={**said, **more, "size": size})


MEMORY = option(
    "auto",
    "memory for rows, such as 2G: more of them are read in chunks, in a random order "
    "that depends on it; all: rows stay in memory; auto: if they fit, else in half of "
    "what is free",
    metavar="SIZE",
    size=True,
)
"""What rows, and outputs of layers, may take at a time where they do not all fit."""


def options_of(cls: type) -> dict[str, Option]:
    """Return what the fields of a configuration say, by name."""
    types, found = get_type_hints(cls), {}
    for item in fields(cls):
        name, type_ = item.name, types[item.name]
        is_list = get_origin(type_) is tuple
        entry = get_args(type_)[0] if is_list else type_
        found[name] = Option(name, entry, is_list, item.default, **item.metadata)
    return found


def of_others(cls: type, choice: str) -> dict[str, Option]:
    """Return what fields say that other choices than one alone have a use for."""
    options = options_of(cls)
    return {k: item for k, item in options.items() if item.of not in ("", choice)}


def flag(name: str) -> str:
    """Return the command line's spelling of a field."""
    return "--" + name.replace("_", "-")


def per_layer(name: str, values: tuple[Value, ...], n_layers: int) -> tuple[Value, ...]:
    """Return one value a layer; a single value holds for all, others are refused."""
    n = len(values)
    if n == 1:
        return values * n_layers
    if n_layers == 1:
        words = f"needs one number, as there is one layer; got {n}. Give one."
        raise FieldError.of(name, words)
    if n != n_layers:
        words = f"needs one number, or one for each of the {n_layers} layers; got {n}."
        raise FieldError.of(name, f"{words} Give 1 or {n_layers} numbers.")
    return values
