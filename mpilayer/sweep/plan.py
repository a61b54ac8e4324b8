"""The experiments of a sweep, and whether a sweep may go on with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpilayer import files
from mpilayer.config import SWEEP, as_values, options_of, to_toml
from mpilayer.errors import ConfigError
from mpilayer.runs.directory import EXPERIMENT
from mpilayer.runs.experiment import FOLDERS, Plan, plan_of
from mpilayer.sweep.asked import Asked, Sections, changed, read_asked
from mpilayer.words import few

_LONGEST = 200
MOST = 1000
"""Runs of a sweep that need no --yes."""


@dataclass(frozen=True)
class Member:
    """An experiment of a sweep."""

    name: str  # its folder within the sweep
    setting: str  # the name of its settings, empty if all have the same
    seed: int | None
    plan: Plan


@dataclass(frozen=True)
class SweepPlan:
    """All experiments of a sweep, in the order in which they begin.

    ``sections`` are those of a file that gives the same sweep.
    """

    path: Path
    sections: Sections
    members: tuple[Member, ...]

    def write(self) -> None:
        """Write the file from which the sweep goes on."""
        files.write(self.path / EXPERIMENT, to_toml(self.sections))


def read_sweep(
    file: Path,
    texts: Sequence[str] = (),
    seeds: str | None = None,
    run: Path | None = None,
    many: bool = False,
) -> SweepPlan | Plan:
    """Return the sweep that is asked for, see ``read_asked``, or the one experiment.

    A ``ConfigError`` says what is wrong, or that these are more experiments than one
    wants, unless ``many`` are meant.
    """
    shared, asked = read_asked(file, texts, seeds)
    if not asked:
        return plan_of(file, shared, run)
    if asked.size > MOST and not many:
        raise ConfigError(
            f"a sweep of more than {MOST} runs must be meant; these are {asked.size}. "
            "Give --yes, or fewer values."
        )
    _, first = next(asked.combinations())
    own = plan_of(file, changed(shared, first), run).experiment
    experiment = {**shared.get("experiment", {}), "name": own.name, "run": own.run}
    sections = {**shared, "experiment": experiment, SWEEP: asked.as_section()}
    members = tuple(_members(file, shared, Path(own.run), asked))
    _check_distinct(members)
    return SweepPlan(Path(own.run), sections, members)


def _members(
    file: Path, shared: Sections, path: Path, asked: Asked
) -> Iterator[Member]:
    """Yield all experiments; those of a seed together, so that pairs come early."""
    made: dict[str, Path] = {}
    for seed in asked.seeds:
        steps = [] if seed is None else [step for step in FOLDERS if step in shared]
        folder = "" if seed is None else f"seed-{seed}"
        for setting, case in asked.combinations():
            sections = changed(shared, {**case, **{(s, "seed"): seed for s in steps}})
            name = "/".join(filter(None, (setting, folder)))
            try:
                plan = plan_of(file, sections, path / name)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from error
            yield Member(name, setting, seed, _sharing(plan, path, made))


def _sharing(plan: Plan, path: Path, made: dict[str, Path]) -> Plan:
    """Return the plan with the data set that all of the same [data] have."""
    if not plan.data.path:
        place = path / f"data{f'-{len(made) + 1}' if made else ''}.h5"
        shared = made.setdefault(repr(plan.data), place)
        plan = replace(plan, data=replace(plan.data, path=str(shared)))
    if plan.experiment.steps == ("auto",):  # the sweep has a table of all runs
        steps = tuple(s for s in plan.steps if s not in ("evaluate", "report"))
        plan = replace(plan, steps=steps)
    return plan


def _check_distinct(members: Sequence[Member]) -> None:
    """Check that no two are the same, and that all are measured alike."""
    seen: dict[str, str] = {}
    for member in members:
        if len(member.setting.encode()) > _LONGEST:
            raise ConfigError(
                f"settings must have names of at most {_LONGEST} bytes, for folders; "
                f"got {member.setting[:40]}... Vary fewer keys, or name the settings: "
                f"[{SWEEP}.cases.NAME]."
            )
        content = repr((member.plan.data, sorted(member.plan.training.items())))
        if content in seen:
            raise ConfigError(
                f"the runs of a sweep must differ; {seen[content]} and {member.name} "
                "have the same settings. Leave one of them out."
            )
        seen[content] = member.name
    if len(tasks := {member.plan.task or "" for member in members}) > 1:
        raise ConfigError(
            "the runs of a sweep must be measured alike; got the tasks "
            f"{', '.join(sorted(tasks))}. Make a sweep of each."
        )


def check_goes_on(before: SweepPlan, now: SweepPlan) -> None:
    """Check that a sweep has all runs that it had, with the same settings.

    It may have more, such as further seeds. A ``ConfigError`` says what differs.
    """
    asked = {member.name: member.plan for member in now.members}
    lost = [member.name for member in before.members if member.name not in asked]
    different = f"there were runs not asked for now: {few(lost, 3)}" if lost else ""
    for member in before.members if not lost else ():
        was, now_ = _decisive(member.plan), _decisive(asked[member.name])
        found = [
            f"{key} was {was.get(key)}, is {now_.get(key)}"
            for key in {**was, **now_}
            if was.get(key) != now_.get(key)
        ]
        if found and not different:
            different = f"{member.name}: {'; '.join(found)}"
    if different:
        raise ConfigError(
            "a sweep must go on with the settings it began with, or with more values; "
            f"in {now.path} {different}. Go on with 'mpilayer run "
            f"{now.path / EXPERIMENT} --resume auto', or choose another --run."
        )


def _decisive(plan: Plan) -> dict[str, Any]:
    """Return all settings that may change a result, by section and key."""
    return {
        f"{section}.{key}": value
        for section, config in {"data": plan.data, **plan.training}.items()
        for key, value in as_values(config).items()
        if not options_of(type(config))[key].harmless
    }
