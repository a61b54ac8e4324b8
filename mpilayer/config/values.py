"""Configurations from values and TOML, and back."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from mpilayer import files
from mpilayer.config.experiment import DataConfig, ExperimentConfig, ReportConfig
from mpilayer.config.fields import FieldError, Settings, options_of
from mpilayer.config.training import (
    PRESETS,
    FinetuneConfig,
    PretrainConfig,
    SparseConfig,
)
from mpilayer.errors import ConfigError, unknown

SECTIONS: Mapping[str, type[Any]] = {
    "experiment": ExperimentConfig,
    "data": DataConfig,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "sparse": SparseConfig,
    "compare": SparseConfig,
    "report": ReportConfig,
}
"""Sections of an experiment's file, and what decides each."""

# Sections of a configuration file; the second row is what a run adds, or a whole
# experiment reads: no single command does.
_SECTIONS = (
    *("pretrain", "finetune", "classify", "regress", "sparse"),
    *("experiment", "report", "compare", "data", "launch", "created_by", "seal"),
)

Config = TypeVar("Config", bound=Settings)


def read_toml(path: Path, section: str) -> dict[str, Any]:
    """Return one section of a configuration file.

    ConfigError: the file is missing or no TOML, or has a section or key that nothing
    reads.
    """
    sections = read_sections(path)
    return compared(sections) if section == "compare" else sections.get(section, {})


def compared(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what holds for a comparison: [sparse], and [compare] over it.

    The file of a comparison's run only lists its two runs there, in ``runs``.
    """
    own = dict(sections.get("compare", {}))
    own.pop("runs", None)
    return {**sections.get("sparse", {}), **own}


def read_sections(
    path: Path, legal: Sequence[str] = _SECTIONS
) -> dict[str, dict[str, Any]]:
    """Return all sections of a configuration file.

    ConfigError: the file is missing or no TOML, or has a section that is not legal.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8", errors=files.NAMES))
    except OSError as error:
        raise ConfigError(
            f"{path} must be a readable file; {error.strerror}. Give another one; "
            "'mpilayer config' writes one to begin with."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} must be TOML; {error}. Mend the file.") from error
    for section, values in content.items():
        if section not in legal:
            if homes := _homes(section):
                raise ConfigError(
                    f"{path}: the key {section!r} must stand in a section; it stands "
                    f"above all of them. Write it below {homes}."
                )
            raise ConfigError(f"{path}: {unknown('section', section, legal)}")
        if not isinstance(values, dict):
            raise ConfigError(
                f"{path}: {section} must be a table; found {values!r}. Write "
                f"[{section}]."
            )
    return content


def from_values(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """Return a configuration from values by name; scalars serve as lists of one.

    FieldError: a wrong name (answered with a guess or the legal ones), type or range.
    """
    options = options_of(cls)
    for name in values:
        if name not in options:
            raise FieldError(unknown_key(name, options), name)
    values = {**PRESETS.get(str(values.get("preset")), {}), **values}
    return cls(**{name: options[name].from_file(v) for name, v in values.items()})


def unknown_key(name: str, legal: Iterable[str]) -> str:
    """Return the message for a key that a section does not have."""
    if homes := _homes(name):
        return f"unknown key {name!r}; it belongs in {homes}. Move it there."
    return unknown("key", name, legal)


def _homes(key: str) -> str:
    """Return in words which sections have a key; empty for none."""
    # Compared is what [sparse] says.
    return " or ".join(
        f"[{section}]"
        for section, cls in SECTIONS.items()
        if section != "compare" and key in options_of(cls)
    )


def as_values(config: Any) -> dict[str, Any]:
    """Return all fields by name, tuples as lists: what TOML and JSON can hold."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(config).items()
    }


def to_toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return sections as TOML text."""
    return tomli_w.dumps({name: dict(values) for name, values in sections.items()})
