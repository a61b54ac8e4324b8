"""Which experiments a sweep is made of: what its file and the command line say.

::

    [sweep]
    seeds = "0-9"                            # an experiment for each seed
    finetune.learning_rate = [1e-3, 3e-4]    # and each value, in all combinations
    [sweep.cases.greedy]                     # settings that go together, by name
    pretrain.schedule = "greedy"
    pretrain.extra_epochs = 0
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from mpilayer import files
from mpilayer.config import (
    SECTIONS,
    SWEEP,
    as_values,
    option_at,
    options_of,
    read_change,
    read_experiment,
    to_toml,
)
from mpilayer.errors import ConfigError, unknown
from mpilayer.runs.directory import EXPERIMENT
from mpilayer.runs.experiment import FOLDERS, Plan, plan_of
from mpilayer.words import few, spans

MOST = 1000
"""Runs of a sweep that need no --yes."""

_VARIED = ("data", *FOLDERS)
_NAME = re.compile(r"[\w+=,-][\w.+=,-]*")
_WORD = re.compile(r"[a-zA-Z][\w-]*")
_SPAN = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")
_LONGEST = 80

Case: TypeAlias = Mapping[tuple[str, str], Any]
"""Values by section and key."""

_Varied: TypeAlias = Mapping[tuple[str, str], Sequence[Any]]


@dataclass(frozen=True)
class Member:
    """An experiment of a sweep."""

    setting: str  # the name of its settings, empty if all have the same
    seed: int | None
    plan: Plan

    @property
    def name(self) -> str:
        """Its folder within the sweep."""
        return member_name(self.setting, self.seed)


@dataclass(frozen=True)
class SweepPlan:
    """All experiments of a sweep, in the order in which they begin.

    ``sections`` are those of a file that gives the same sweep.
    """

    path: Path
    sections: Mapping[str, Mapping[str, Any]]
    members: tuple[Member, ...]

    def write(self) -> None:
        """Write the file from which the sweep goes on."""
        files.write(self.path / EXPERIMENT, to_toml(self.sections))


def member_name(setting: str, seed: int | None) -> str:
    """Return the folder of an experiment within its sweep."""
    return "/".join(filter(None, (setting, "" if seed is None else f"seed-{seed}")))


def read_sweep(
    file: Path,
    texts: Sequence[str] = (),
    seeds: str | None = None,
    run: Path | None = None,
    many: bool = False,
) -> SweepPlan | Plan:
    """Return the sweep that a file and ``--set`` ask for, or else the one experiment.

    ``texts`` are ``section.key=value``; a key with several values, and ``seeds``, come
    before what the file says of it. A ``ConfigError`` says what is wrong, or that these
    are more experiments than one wants, unless ``many`` are meant.
    """
    given = _given(texts)
    single = [(*place, v[0]) for place, v in given.items() if len(v) == 1]
    sections = dict(read_experiment(file, single))
    varied, cases, in_file = _declared(sections.pop(SWEEP, {}), file)
    if seeds is None and in_file is not None:
        seeds, where = in_file, f"{file}, [{SWEEP}] seeds"
    else:
        where = "--seeds"
    several = {place: v for place, v in given.items() if len(v) > 1}
    varied = {k: v for k, v in varied.items() if k not in given} | several
    cases = {
        name: {k: v for k, v in case.items() if k not in given}
        for name, case in cases.items()
    }
    if seeds is None and not varied and not cases:
        return plan_of(file, sections, run)
    numbers = None if seeds is None else _numbers(seeds, where)
    _check_varied(sections, [*varied, *(k for c in cases.values() for k in c)], numbers)
    factors = [len(cases) or 1, *map(len, varied.values())]
    _check_count(len(numbers or ".") * math.prod(factors), many)
    base = plan_of(file, _changed(sections, next(_settings(varied, cases))))
    path = run or Path(base.experiment.run)
    own = {**sections.get("experiment", {}), "name": base.experiment.name}
    sections["experiment"] = own | {"run": str(path)}
    members = tuple(_members(file, sections, path, varied, cases, numbers))
    _check_distinct(members)
    said = _as_section(varied, cases, numbers)
    return SweepPlan(path, {**sections, SWEEP: said}, members)


# --- what is asked for


def _given(texts: Iterable[str]) -> dict[tuple[str, str], list[Any]]:
    """Return the values that the command line gives, by section and key.

    A comma parts values where a key takes one; where it takes a list, and in [data],
    whose texts may hold commas, the key is given again.
    """
    given: dict[tuple[str, str], list[Any]] = {}
    for text in texts:
        place, _, value = text.partition("=")
        each = [text]
        if "," in value:
            section, _, item = option_at(place.strip(), f"--set {text}")
            if section in FOLDERS and not item.is_list:
                each = [f"{place}={part}" for part in value.split(",")]
        if any(len(each) > 1 and one.strip().endswith("=") for one in each):
            raise ConfigError(
                f"--set {text}: there must be a value beside each comma. Leave the "
                "comma out."
            )
        for section, key, found in map(read_change, each):
            given.setdefault((section, key), []).append(found)
    return given


def _declared(
    table: Mapping[str, Any], file: Path
) -> tuple[dict[tuple[str, str], list[Any]], dict[str, Case], str | None]:
    """Return the varied values, the cases and the seeds of the section [sweep]."""
    where = f"{file}, [{SWEEP}]"
    varied: dict[tuple[str, str], list[Any]] = {}
    cases: dict[str, Case] = {}
    rest = {key: value for key, value in table.items() if key not in ("seeds", "cases")}
    for place, values in _flat(rest, where):
        section, key, item = option_at(place, where)
        if not isinstance(values, list) or not values:
            raise ConfigError(
                f"{where}: {place} must be a list of at least one value; got "
                f"{values!r}. Write [{values if values != [] else 'VALUE'}]."
            )
        varied[section, key] = [item.from_file(value) for value in values]
    found = table.get("cases", {})
    if not isinstance(found, dict):
        raise ConfigError(
            f"{where}: cases must be tables; got {found!r}. Write [{SWEEP}.cases.NAME]."
        )
    for name, case in found.items():
        if not (isinstance(case, dict) and _NAME.fullmatch(name)):
            raise ConfigError(
                f"{where}: a case must be a table, with a name of letters, digits and "
                f"hyphens; got {name!r}. Write [{SWEEP}.cases.NAME]."
            )
        places = [(option_at(p, f"{where} {name}"), v) for p, v in _flat(case, where)]
        cases[name] = {(s, k): item.from_file(v) for (s, k, item), v in places}
    seeds = table.get("seeds")
    if isinstance(seeds, list):
        seeds = ",".join(map(str, seeds))
    return varied, cases, None if seeds is None else str(seeds)


def _flat(table: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """Yield ``section.key`` with its value, written as a table or as one key."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{inner}", entry) for inner, entry in value.items())
        elif "." in key:
            yield key, value
        else:
            words = unknown("key", key, ("seeds", "cases"))
            raise ConfigError(f"{where}: {words} Others are written SECTION.KEY.")


def _numbers(text: str, where: str) -> list[int]:
    """Return the seeds that a text such as ``0,3,7-9`` names."""
    parts = [_SPAN.fullmatch(part.strip()) for part in text.split(",")]
    spans_ = [(int(p[1]), int(p[2] or p[1])) for p in parts if p]
    if len(spans_) < len(parts) or any(first > last for first, last in spans_):
        raise ConfigError(
            f"{where} must be whole numbers and spans of them; got {text!r}. Give for "
            "example 0-9 or 0,3,7-9."
        )
    if sum(last - first + 1 for first, last in spans_) > 10**7:
        raise ConfigError(
            f"{where} must be at most {10**7} numbers; got {text!r}. Give fewer."
        )
    numbers = [n for first, last in spans_ for n in range(first, last + 1)]
    if len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"{where} must be different numbers; got {text!r}. Name each once."
        )
    return numbers


def _check_varied(
    sections: Mapping[str, Any],
    places: Iterable[tuple[str, str]],
    seeds: Sequence[int] | None,
) -> None:
    for section, key in places:
        place = f"{section}.{key}"
        if section not in _VARIED:
            raise ConfigError(
                f"a sweep varies {', '.join(_VARIED)}; got {place}. Give it one value."
            )
        if seeds is not None and key == "seed" and section != "data":
            raise ConfigError(
                f"--seeds sets the seed of every step; got {place}, too. Leave one out."
            )
        if section in FOLDERS and section not in sections:
            raise ConfigError(
                f"a sweep varies what the experiment has; {place} is of a section that "
                f"is not there. Add [{section}] to the file."
            )


def _check_count(n: int, many: bool) -> None:
    if n > MOST and not many:
        raise ConfigError(
            f"a sweep of more than {MOST} runs must be meant; these are {n}. Give "
            "--yes, or fewer values."
        )


# --- what it is made of


def _settings(
    varied: _Varied, cases: Mapping[str, Case]
) -> Iterator[dict[tuple[str, str], Any]]:
    """Yield the settings of each combination; what is varied comes before a case."""
    for case in cases.values() or ({},):
        for values in product(*varied.values()):
            yield {**case, **dict(zip(varied, values, strict=True))}


def _members(
    file: Path,
    sections: Mapping[str, Mapping[str, Any]],
    path: Path,
    varied: _Varied,
    cases: Mapping[str, Case],
    seeds: Sequence[int] | None,
) -> Iterator[Member]:
    """Yield all experiments; those of a seed together, so that pairs come early."""
    n_each = math.prod(map(len, varied.values()))
    prefixes = [name for name in cases or ("",) for _ in range(n_each)]
    named: dict[str, dict[tuple[str, str], Any]] = {}
    for prefix, own in zip(prefixes, _settings(varied, cases), strict=True):
        parts = [prefix, *_named({place: own[place] for place in varied})]
        name = short = ",".join(filter(None, parts))[:_LONGEST]
        while name in named:
            name = f"{short}+{len(named)}"
        named[name] = own
    made: dict[str, Path] = {}
    for seed in seeds or (None,):
        for name, own in named.items():
            steps = () if seed is None else (s for s in FOLDERS if s in sections)
            changes = {**own, **{(step, "seed"): seed for step in steps}}
            where = path / member_name(name, seed)
            try:
                plan = plan_of(file, _changed(sections, changes), where)
            except ConfigError as error:
                raise ConfigError(f"{member_name(name, seed)}: {error}") from error
            yield Member(name, seed, _sharing(plan, path, made))


def _named(values: Mapping[tuple[str, str], Any]) -> Iterator[str]:
    """Yield each value as a part of a folder's name; a word alone says enough."""
    words = [v for v in values.values() if isinstance(v, str) and _WORD.fullmatch(v)]
    keys = [key for _, key in values]
    for (section, key), value in values.items():
        entries = value if isinstance(value, tuple) else (value,)
        text = "-".join(f"{v:g}" if isinstance(v, float) else str(v) for v in entries)
        text = re.sub(r"[^\w.+-]+", "-", text).strip(".-") or "none"
        if [value] == words:
            yield text
        else:
            yield f"{key if keys.count(key) == 1 else f'{section}.{key}'}={text}"


def _changed(
    sections: Mapping[str, Mapping[str, Any]], case: Case
) -> dict[str, dict[str, Any]]:
    """Return sections with the values of a case."""
    new = {name: dict(values) for name, values in sections.items()}
    for (section, key), value in case.items():
        new.setdefault(section, {})[key] = value
    return new


def _sharing(plan: Plan, path: Path, made: dict[str, Path]) -> Plan:
    """Return the plan with the data set that all of the same [data] have.

    Its steps are those that train, if the file does not say others: a table is made of
    all runs together.
    """
    if not plan.data.path:
        place = f"data{f'-{len(made) + 1}' if made else ''}.h5"
        shared = made.setdefault(repr(plan.data), path / place)
        plan = replace(plan, data=replace(plan.data, path=str(shared)))
    if plan.experiment.steps == ("auto",):
        steps = tuple(s for s in plan.steps if s not in ("evaluate", "report"))
        plan = replace(plan, steps=steps)
    return plan


def _check_distinct(members: Sequence[Member]) -> None:
    """Check that no two are the same, and that all are measured alike."""
    seen: dict[str, str] = {}
    for member in members:
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


def _as_section(
    varied: _Varied,
    cases: Mapping[str, Case],
    seeds: Sequence[int] | None,
) -> dict[str, Any]:
    """Return the section [sweep] that says the same."""
    own: dict[str, Any] = {} if seeds is None else {"seeds": _spans(seeds)}
    own |= {".".join(place): _plain(values) for place, values in varied.items()}
    told = {
        name: {".".join(place): _plain(value) for place, value in case.items()}
        for name, case in cases.items()
    }
    return own | ({"cases": told} if told else {})


def _spans(seeds: Sequence[int]) -> str:
    in_order = list(seeds) == sorted(seeds)
    return spans(seeds) if in_order else ",".join(map(str, seeds))


def _plain(value: Any) -> Any:
    """Return a value as TOML has it."""
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


# --- a sweep that goes on


def check_goes_on(before: SweepPlan, now: SweepPlan) -> None:
    """Check that a sweep has all runs that it had, with the same settings.

    It may have more, such as further seeds. Raises ConfigError.
    """
    asked = {member.name: member for member in now.members}
    lost = [member.name for member in before.members if member.name not in asked]
    different = []
    if lost:
        different.append(f"there were runs that are not asked for: {few(lost, 3)}")
    for member in before.members:
        if not lost and (found := _differences(member.plan, asked[member.name].plan)):
            different.append(f"{member.name}: {'; '.join(found)}")
    if different:
        raise ConfigError(
            "a sweep must go on with the settings it began with, or with more values; "
            f"in {now.path} {different[0]}. Go on with 'mpilayer run "
            f"{now.path / EXPERIMENT} --resume auto', or choose another --run."
        )


def _differences(before: Plan, now: Plan) -> list[str]:
    """Return what differs between two plans, but for what changes no result."""
    found = []
    pairs: list[tuple[str, Any, Any]] = [("data", before.data, now.data)]
    pairs += [
        (name, before.training.get(name), now.training.get(name)) for name in FOLDERS
    ]
    for section, was, is_ in pairs:
        old, new = (as_values(c) if c is not None else {} for c in (was, is_))
        harmless = {k for k, o in options_of(SECTIONS[section]).items() if o.harmless}
        found += [
            f"{section}.{key} was {old.get(key)}, is {new.get(key)}"
            for key in {**old, **new}
            if key not in harmless and old.get(key) != new.get(key)
        ]
    return found
