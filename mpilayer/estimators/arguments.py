"""Arguments of constructors that are fields of configurations, said there once."""

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, dataclass, field, fields
from inspect import Parameter, Signature
from textwrap import fill, indent
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np

from mpilayer.config import FieldError, from_values
from mpilayer.errors import ConfigError, unknown

T = TypeVar("T")

_COMM = """\
comm : mpi4py.MPI.Comm or Communicator, optional
    Each rank fits with its own rows, as if one had them all in rank order."""


class SettingError(ConfigError, ValueError):
    """A constructor argument out of its range; as scikit-learn expects it."""


@dataclass(frozen=True)
class Fields:
    """Fields of a configuration that are arguments of an estimator."""

    config: type
    without: Collection[str] = ()  # keep their defaults
    fixed: Mapping[str, Any] = field(default_factory=dict)  # have one value here
    names: Mapping[str, str] = field(default_factory=dict)  # what some are called
    # Values and help for which those of the command line do not fit.
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Field[Any]]:
        """Return the fields by the names of their arguments, each of them once."""
        found: dict[str, Field[Any]] = {}
        for item in fields(self.config):
            if item.name not in self.without and item.name not in self.fixed:
                found.setdefault(self.names.get(item.name, item.name), item)
        return found

    def read(self, values: Mapping[str, Any]) -> Any:
        """Return the configuration that arguments mean, or raise SettingError."""
        for name, legal in self.choices.items():
            if values[name] not in legal:
                raise SettingError(unknown(name, str(values[name]), legal))
        given = {item.name: values[name] for name, item in self.arguments.items()}
        given |= {key: values[name] for key, name in self.names.items()}
        with in_arguments(self.names):
            return from_values(self.config, {**given, **self.fixed})

    def describe(self, name: str, default: Any) -> str:
        """Return an argument's entry in a docstring."""
        item = self.arguments[name]
        legal = self.choices.get(name, item.metadata["choices"])
        kind = get_type_hints(self.config)[item.name]
        words = (get_args(kind) or (kind,))[0].__name__
        if legal:
            words = f"{{{', '.join(map(repr, legal))}}}"
        elif isinstance(default, tuple):
            words = f"{words} or tuple of {words}"
        text = self.words.get(name, _without_flags(item.metadata["help"]))
        return f"{name} : {words}\n" + indent(fill(text.rstrip(" .,"), 80), "    ")


def takes(*sources: Fields, **defaults: Any) -> Callable[[type[T]], type[T]]:
    """Return a decorator that gives an estimator its constructor.

    Only the first argument may stand without its name, and ``comm`` is the last. Of the
    sources a later one adds those that are new; ``defaults`` are where those of fields
    do not hold. ``{parameters}`` in the class's docstring gives way to a description.
    """
    entries: list[str] = []
    values: dict[str, Any] = {}
    for source in sources:
        for name, item in source.arguments.items():
            if name not in values:
                values[name] = defaults.get(name, item.default)
                entries.append(source.describe(name, values[name]))
    values["comm"] = None
    either, named = Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY
    first, *others = values
    arguments = [Parameter(first, either, default=values[first])]
    arguments += [Parameter(name, named, default=values[name]) for name in others]
    signature = Signature([Parameter("self", either), *arguments])

    def __init__(self: Any, *args: Any, **options: Any) -> None:
        bound = signature.bind(self, *args, **options)
        bound.apply_defaults()
        for name in values:
            setattr(self, name, bound.arguments[name])

    def decorate(cls: type[T]) -> type[T]:
        __init__.__signature__ = signature  # type: ignore[attr-defined]
        cls.__init__ = __init__  # type: ignore[method-assign]
        cls._sources = sources  # type: ignore[attr-defined]
        text = "\n".join(["Parameters", "----------", *entries, _COMM])
        cls.__doc__ = inspect.cleandoc(cls.__doc__ or "").replace("{parameters}", text)
        return cls

    return decorate


@contextmanager
def in_arguments(names: Mapping[str, str] | None = None) -> Iterator[None]:
    """Raise a setting's error with names of arguments instead of flags and fields."""
    try:
        yield
    except ConfigError as error:
        text = _without_flags(str(error))
        key = error.key if isinstance(error, FieldError) else ""
        if names and key in names:
            text = re.sub(rf"\b{key}\b", names[key], text)
        raise SettingError(text) from error


def plain(value: Any) -> Any:
    """Return a value of Python's own types: lists as tuples, no NumPy numbers."""
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(plain(entry) for entry in value)
    return value.item() if isinstance(value, np.generic) else value


def _without_flags(text: str) -> str:
    """Return text in which flags of the command line are names of arguments."""
    return re.sub(
        "--([a-z]+(?:-[a-z]+)*)", lambda flag: flag[1].replace("-", "_"), text
    )
