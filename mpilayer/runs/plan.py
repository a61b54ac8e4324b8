"""What an experiment's file says, checked as far as that goes without data.

::

    experiment.toml          the effective settings; serves as EXPERIMENT.toml
    data.h5                  the data set, if it was made here
    deep/                    the run of pretrain and finetune
    sparse/, compare/        the runs of these steps
    evaluate.json            errors of all models, with the PCA errors beside them
    complete                 the steps that have come to their end, one a line
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpilayer.config import (
    SECTIONS,
    STEPS,
    DataConfig,
    ExperimentConfig,
    FinetuneConfig,
    ReportConfig,
    as_values,
    compared,
    from_values,
    options_of,
    read_sections,
    unknown_key,
)
from mpilayer.data.recipe import patch_range
from mpilayer.errors import ConfigError, unknown
from mpilayer.files import PAGES
from mpilayer.runs.directory import EXPERIMENT
from mpilayer.runs.tasks import TASKS

FOLDERS = ("deep", "sparse", "compare")
"""Where the runs are, in the order of their steps."""

TRAINING = ("pretrain", "finetune", "sparse", "compare")
"""Sections that train."""

FILE = EXPERIMENT
EVALUATION = "evaluate.json"
CONTENT = frozenset({FILE, "data.h5", *FOLDERS, EVALUATION, "complete"})
"""All that an experiment leaves, but for its report."""

_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}

FOLDER_OF = {"pretrain": "deep", "finetune": "deep"}
"""Where the run of a step is, if it is not called as the step."""


@dataclass(frozen=True)
class Plan:
    """What an experiment does: its sections, and its steps in their order."""

    experiment: ExperimentConfig
    data: DataConfig
    report: ReportConfig
    training: Mapping[str, Any]
    steps: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The directory of all results."""
        return Path(self.experiment.run)

    @property
    def data_path(self) -> Path:
        """The data set."""
        return Path(self.data.path or self.path / "data.h5")

    @property
    def task(self) -> str | None:
        """The task of fine-tuning, if there is such a step."""
        config = self.training.get("finetune")
        return config.task if isinstance(config, FinetuneConfig) else None

    def mark(self, step: str) -> str:
        """Return what a training step's run calls it."""
        return TASKS[self.task].name if step == "finetune" and self.task else step

    def folder(self, step: str) -> Path:
        """Return the run directory of a training step."""
        return self.path / FOLDER_OF.get(step, step)


def is_experiment(path: Path) -> bool:
    """Tell whether a directory is that of an experiment. Local."""
    return (path / FILE).is_file()


def read_plan(file: Path, changes: Iterable[str] = (), run: Path | None = None) -> Plan:
    """Read and check an experiment's TOML file.

    ``changes``, each ``section.key=value``, and ``run``, the directory of all results,
    come before what the file says.

    Raises
    ------
    ConfigError
        A wrong section, key, type or range; steps that do not go together.
    """
    sections = read_sections(file, tuple(SECTIONS))
    for change in changes:
        section, key, value = _change(change)
        sections.setdefault(section, {})[key] = value
    if "compare" in sections:
        sections["compare"] = compared(sections)
    configs: dict[str, Any] = {}
    for name, cls in SECTIONS.items():
        try:
            configs[name] = from_values(cls, sections.get(name, {}))
        except ConfigError as error:
            raise ConfigError(f"{file}, [{name}]: {error}") from error
    training = {name: configs[name] for name in TRAINING if name in sections}
    first: ExperimentConfig = configs["experiment"]
    name = first.name or file.stem
    path = str(run) if run else first.run or str(Path("runs") / name)
    plan = Plan(
        replace(first, name=name, run=path),
        configs["data"],
        configs["report"],
        training,
        _steps(first.steps, sections),
    )
    _check(plan, file)
    return plan


def to_sections(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return the effective settings by section."""
    own = {"experiment": plan.experiment, "data": plan.data, "report": plan.report}
    return {
        name: as_values(config) for name, config in {**own, **plan.training}.items()
    }


def _change(text: str) -> tuple[str, str, Any]:
    """Return section, key and value of a ``--set``."""
    place, equals, value = text.partition("=")
    section, dot, key = place.strip().partition(".")
    if not (equals and dot):
        raise ConfigError(
            f"--set needs SECTION.KEY=VALUE; got {text!r}. Give for example "
            "--set finetune.epochs=3."
        )
    if section not in SECTIONS:
        raise ConfigError(f"--set {text}: {unknown('section', section, SECTIONS)}")
    options = options_of(SECTIONS[section])
    if key not in options:
        raise ConfigError(f"--set {text}: {unknown_key(key, options)}")
    try:
        return section, key, options[key].from_text(value.strip())
    except ValueError:
        raise ConfigError(
            f"--set {text}: {key} must be {options[key].noun}; got {value!r}. See "
            f"'mpilayer config {'experiment' if section != 'compare' else 'sparse'}'."
        ) from None


def _steps(given: tuple[str, ...], sections: Mapping[str, Any]) -> tuple[str, ...]:
    usual = {"data", "evaluate", "report", *sections}
    chosen = usual if given == ("auto",) else set(given)
    return tuple(step for step in STEPS if step in chosen or step == "data")


def _check(plan: Plan, file: Path) -> None:
    """Check what concerns several sections."""
    trains = [step for step in plan.steps if step in TRAINING]
    if not trains:
        raise ConfigError(
            f"{file} must train something; it has none of the sections "
            f"{', '.join(TRAINING)}. See 'mpilayer config experiment'."
        )
    if "auto" in plan.experiment.steps and len(plan.experiment.steps) > 1:
        raise ConfigError(
            f"{file}: steps must be auto alone, or steps; got "
            f"{', '.join(plan.experiment.steps)}. Leave auto out."
        )
    for step in trains:
        if step not in plan.training:
            raise ConfigError(
                f"{file}: step {step} needs the section [{step}]; there is none. Add "
                "it; it may be empty."
            )
    if "finetune" in trains and "pretrain" not in trains:
        raise ConfigError(
            f"{file}: step finetune needs pretrain before it; found "
            f"{', '.join(trains)}. Add the section [pretrain]."
        )
    if not (plan.data.path or plan.data.source):
        raise ConfigError(
            f"{file}: [data] must say path, source or both; it says neither. Add it, "
            "or give --set data.path=DATA.h5."
        )
    patch_range(plan.data.range)
    _check_report(plan, file)


def _check_report(plan: Plan, file: Path) -> None:
    name = Path(plan.report.file)
    is_new = name.name == plan.report.file and name.name not in CONTENT
    if not is_new or name.suffix.lower() not in PAGES:
        raise ConfigError(
            f"{file}: [report] file must be a new name beside the results that ends in "
            f"{' or '.join(PAGES)}; got {plan.report.file!r}. Give for example "
            "file = 'report.html'."
        )
