"""Sections of configuration files: of a whole experiment, and to values and back."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from mpilayer import files
from mpilayer.config.fields import FieldError, Option, Settings, option, options_of
from mpilayer.config.sparse import PRESETS, SparseConfig
from mpilayer.config.training import FinetuneConfig, PretrainConfig
from mpilayer.errors import ConfigError, unknown

STEPS = ("data", "pretrain", "finetune", "sparse", "compare", "evaluate", "report")
"""Steps of an experiment, in their order."""


@dataclass(frozen=True)
class ExperimentConfig(Settings):
    """What ``mpilayer run`` does besides training."""

    name: str = option("", "what to call it; empty: as the file")
    run: str = option("", "directory of all results; empty: runs/NAME")
    steps: tuple[str, ...] = option(
        ("auto",),
        "what to do, in this order; auto: what has a section, then evaluate, report",
        choices=("auto", *STEPS),
    )
    split: str = option(
        "test",
        "rows to evaluate on; the training rows where the data have no such split",
        choices=("train", "validation", "test"),
    )


@dataclass(frozen=True)
class DataConfig(Settings):
    """The data set of an experiment, and how it is made if it is not there."""

    path: str = option("", "the data set; empty: data.h5 beside the results")
    source: str = option("", "what to make it from, if it is not there; empty: nothing")
    make: str = option(
        "prepare",
        "how: 'prepare' from files of samples, 'patches' of images",
        choices=("prepare", "patches"),
    )
    validation: int = option(
        0,
        "rows to set apart for validation, equally many of each class; patches: "
        "further patches, for validation",
        least=0,
    )
    test: int = option(0, "further rows to set apart, for tests", least=0, of="prepare")
    rows: int = option(
        0,
        "training rows to keep of those that are left, equally many of each class; 0: "
        "all",
        least=0,
        of="prepare",
    )
    unbalanced: bool = option(
        False, "set rows apart whatever their classes are", of="prepare"
    )
    labels: str = option(
        "",
        "the column of a .csv, by name or number, or the array that holds "
        "labels: whole numbers or texts are classes, other numbers are for finetune "
        "--task regress; empty: 'label' in .csv, 'labels' or 'y' elsewhere, if there",
        metavar="COLUMN",
        of="prepare",
    )
    dataset: str = option(
        "",
        "the array of samples in a .h5, .npz or .mat file, such as group/x; empty: the "
        "only one, or 'x', 'train_x', 'x_train' and so on",
        metavar="NAME",
        of="prepare",
    )
    stored_scale: float = option(
        0.0,
        "keep integers of one or two bytes, and float16, as they are; each stands for "
        "itself times X, plus --stored-offset; 0: what a .h5 file says (scale_factor), "
        "else bytes are pixels of 1/255, and other numbers become float32",
        least=0,
        of="prepare",
    )
    stored_offset: float = option(
        0.0, "what a stored 0 stands for, with --stored-scale", of="prepare"
    )
    scale: str = option(
        "none",
        "each column by its training rows, minmax to 0 to 1, standard to mean "
        "0 and standard deviation 1",
        choices=("none", "minmax", "standard"),
        of="prepare",
    )
    like: str = option(
        "",
        "as the data of a run, or a data set, were: the same labels, classes "
        "and scaling",
        metavar="RUN|DATA.h5",
        of="prepare",
    )
    seed: int = option(
        0, "chooses the rows to set apart; patches: chooses the patches", least=0
    )
    name: str = option("", "what to call it; empty: as the source", metavar="NAME")
    count: int = option(100_000, "training patches to draw", least=1, of="patches")
    size: int = option(
        8, "height and width of a patch in pixels", least=1, of="patches"
    )
    whiten: bool = option(
        False,
        "flatten the images' spectrum first, as Olshausen and Field do",
        of="patches",
    )
    range: str = option(
        "raw",
        "raw, as they are; LOW,HIGH: subtract each patch's mean, truncate at "
        "3 standard deviations, scale to that range; 0.1,0.9 suits sigmoid units",
        metavar="raw|LOW,HIGH",
        of="patches",
    )


@dataclass(frozen=True)
class ReportConfig(Settings):
    """The report of an experiment."""

    file: str = option("report.html", "its name, beside the results")


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

SWEEP = "sweep"
"""The section of an experiment that makes several of it; see ``mpilayer.sweep``."""

# Sections of a configuration file; the second row is what a run adds, or a whole
# experiment reads: no single command does.
_SECTIONS = (
    *("pretrain", "finetune", "classify", "regress", "sparse"),
    *("experiment", "report", "compare", "data", SWEEP, "launch", "created_by", "seal"),
)

Config = TypeVar("Config", bound=Settings)


def read_toml(path: Path, section: str) -> dict[str, Any]:
    """Return one section of a configuration file; see ``read_sections``."""
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
    """Return all sections of a configuration file, if all are ``legal``."""
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
            words = unknown("section", section, legal)
            if homes := _homes(section):
                words = (
                    f"the key {section!r} must stand in a section; it stands above all "
                    f"of them. Write it below {homes}."
                )
            raise ConfigError(f"{path}: {words}")
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
            raise FieldError(_unknown_key(name, options), name)
    values = {**PRESETS.get(str(values.get("preset")), {}), **values}
    return cls(**{name: options[name].from_file(v) for name, v in values.items()})


def read_experiment(file: Path) -> dict[str, dict[str, Any]]:
    """Return all sections of an experiment's file."""
    return read_sections(file, (*SECTIONS, SWEEP))


def settings_of_all(
    file: Path, sections: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the settings of every section that an experiment can have.

    A comparison has those of [sparse], too. A ``ConfigError`` says what is wrong in the
    ``file``.
    """
    if "compare" in sections:
        sections = {**sections, "compare": compared(sections)}
    configs: dict[str, Any] = {}
    for name, cls in SECTIONS.items():
        try:
            configs[name] = from_values(cls, sections.get(name, {}))
        except ConfigError as error:
            raise ConfigError(f"{file}, [{name}]: {error}") from error
    return configs


def option_at(place: str, where: str) -> tuple[str, str, Option]:
    """Return the section, the key and what is declared at ``section.key``.

    A ``ConfigError``, which begins with ``where``, says: there is no such key.
    """
    section, _, key = place.partition(".")
    if section not in SECTIONS:
        raise ConfigError(f"{where}: {unknown('section', section, SECTIONS)}")
    options = options_of(SECTIONS[section])
    if key not in options:
        raise ConfigError(f"{where}: {_unknown_key(key, options)}")
    return section, key, options[key]


def _unknown_key(name: str, legal: Iterable[str]) -> str:
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
