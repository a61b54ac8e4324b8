"""Fields that say their default, help and legal range, and the check of them."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import Field, field, fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mpilayer.errors import ConfigError, unknown

Value = TypeVar("Value")

# What libraries can count to.
_MOST = 2**63 - 1

_NOUNS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
}


class FieldError(ConfigError):
    """A value that a field cannot have, in words that fit a flag as well as a file.

    Parameters
    ----------
    message : str
        As of every error.
    key : str
        The field.
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Return a field with help and a legal range (for lists: of each entry)."""
    return field(
        default=default,
        metadata={
            "help": help,
            "choices": tuple(choices),
            "least": least,
            "above": above,
            "below": below,
        },
    )


def flag(name: str) -> str:
    """Return the command line's spelling of a field."""
    return "--" + name.replace("_", "-")


def per_layer(name: str, values: tuple[Value, ...], n_layers: int) -> tuple[Value, ...]:
    """Return one value a layer; a single value holds for all.

    Raises
    ------
    FieldError
        Neither one value nor one a layer.
    """
    if len(values) == 1:
        return values * n_layers
    if n_layers == 1:
        raise FieldError(
            f"{name} needs one number, as there is one layer; got {len(values)}. Give "
            "one.",
            name,
        )
    if len(values) != n_layers:
        raise FieldError(
            f"{name} needs one number, or one for each of the {n_layers} layers; got "
            f"{len(values)}. Give 1 or {n_layers} numbers.",
            name,
        )
    return values


def value_from_text(type_: Any, text: str) -> Any:
    """Return a field's value from the command line's text.

    Raises
    ------
    ValueError
        The text is no such value.
    """
    if get_origin(type_) is tuple:
        entry = get_args(type_)[0]
        return tuple(entry(part) for part in text.split(","))
    return type_(text)


def check(config: Any) -> None:
    """Check the type and range of every field.

    Raises
    ------
    FieldError
        Names the field, the range and what was found.
    """
    types = get_type_hints(type(config))
    for item in fields(config):
        value = getattr(config, item.name)
        is_list = get_origin(types[item.name]) is tuple
        entry_type = get_args(types[item.name])[0] if is_list else types[item.name]
        entries = value if is_list else (value,)
        if is_list and not (isinstance(value, tuple) and value):
            raise FieldError(
                f"{item.name} must be a list of numbers; got {value!r}.", item.name
            )
        for entry in entries:
            if is_list and isinstance(entry, str):
                _check_no_list(item.name, types[item.name], entry)
            _check_entry(item, entry_type, entry)


def _check_no_list(name: str, type_: Any, text: str) -> None:
    """Check that a list does not stand in a text, as on the command line."""
    try:
        meant = list(value_from_text(type_, text))
    except ValueError:
        return
    if meant != [text]:
        raise FieldError(
            f"{name} must be a list; got the text {text!r}. Write {meant}.", name
        )


def _check_entry(item: Field[Any], type_: type, value: Any) -> None:
    if type(value) is not type_:
        raise FieldError(
            f"{item.name} must be of type {type_.__name__}; got {value!r}. "
            f"Give {_NOUNS[type_]}.",
            item.name,
        )
    if isinstance(value, int) and abs(value) > _MOST:
        raise FieldError(f"{item.name} must be at most {_MOST}.", item.name)
    limits = item.metadata
    if limits["choices"] and value not in limits["choices"]:
        words = unknown(item.name, str(value), limits["choices"])
        raise FieldError(words, item.name)
    rules: list[tuple[float | None, str, Callable[[float, float], bool]]] = [
        (limits["least"], "at least", operator.ge),
        (limits["above"], "greater than", operator.gt),
        (limits["below"], "less than", operator.lt),
    ]
    for bound, words, holds in rules:
        if bound is not None and not holds(value, bound):  # type: ignore[arg-type]
            raise FieldError(
                f"{item.name} must be {words} {bound}; got {value}. "
                f"Change {item.name}.",
                item.name,
            )
