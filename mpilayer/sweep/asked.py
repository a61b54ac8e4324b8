"""What is asked of a sweep: by the section [sweep] of a file, on the command line.

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
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any, TypeAlias

from mpilayer.config import SWEEP, option_at, read_experiment
from mpilayer.errors import ConfigError, unknown
from mpilayer.runs.experiment import FOLDERS

Sections: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Values of a file, by section and key."""

Case: TypeAlias = Mapping[tuple[str, str], Any]
"""Values by section and key."""

_VARIED = ("data", *FOLDERS)
# Of a case: a folder beside files of the sweep, which is not called as they are.
_NAME = re.compile(r"(?!complete$|.*\.[a-zA-Z]\w*$)[\w+=,-][\w.+=,-]*")
_SPAN = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")
# Characters of a value in a folder's name, its last ones.
_LONGEST = 40


@dataclass(frozen=True)
class Asked:
    """What a sweep varies: values by section and key, cases by name, seeds."""

    varied: Mapping[tuple[str, str], Sequence[Any]]
    cases: Mapping[str, Case]
    spans: tuple[range, ...] | None  # of seeds; None: those of the file

    def __bool__(self) -> bool:
        return bool(self.varied or self.cases or self.spans is not None)

    @property
    def seeds(self) -> list[int | None]:
        """The seed of each round, None for that of the file."""
        if self.spans is None:
            return [None]
        return [seed for span in self.spans for seed in span]

    @property
    def size(self) -> int:
        """How many experiments they are."""
        n_seeds = sum(map(len, self.spans)) if self.spans is not None else 1
        n_values = math.prod(map(len, self.varied.values()))
        return n_seeds * n_values * (len(self.cases) or 1)

    def combinations(self) -> Iterator[tuple[str, Case]]:
        """Yield the name and the settings of each combination.

        A value that is varied comes before that of a case.
        """
        keys = [key for _, key in self.varied]
        factors = [dict(self.cases)] if self.cases else []
        for (section, key), values in self.varied.items():
            label = key if keys.count(key) == 1 else f"{section}.{key}"
            named: dict[str, Case] = {}
            for value in values:
                name = f"{label}={_short(value)}"
                while name in named:  # file names of which the same is left
                    name += "+"
                named[name] = {(section, key): value}
            factors.append(named)
        for chosen in product(*(factor.items() for factor in factors)):
            own = {place: v for _, case in chosen for place, v in case.items()}
            yield ",".join(name for name, _ in chosen), own

    def as_section(self) -> dict[str, Any]:
        """Return the section [sweep] that says the same."""
        own: dict[str, Any] = {}
        if self.spans is not None:
            ends = ((str(span[0]), str(span[-1])) for span in self.spans)
            own["seeds"] = ",".join(a if a == b else f"{a}-{b}" for a, b in ends)
        own |= _by_key(self.varied)
        cases = {name: _by_key(case) for name, case in self.cases.items()}
        return own | ({"cases": cases} if cases else {})


def read_asked(
    file: Path, texts: Iterable[str], seeds: str | None
) -> tuple[Sections, Asked]:
    """Return the sections that all experiments share, and what is varied.

    ``texts`` are ``section.key=value``; with ``seeds`` they come before what the file
    says of the same. A ``ConfigError`` says what is wrong.
    """
    given = _given(texts)
    single = {place: values[0] for place, values in given.items() if not values[1:]}
    sections = changed(read_experiment(file), single)
    where = f"{file}, [{SWEEP}]"
    table = sections.pop(SWEEP, {})
    cases = {
        name: {place: v for place, v in case.items() if place not in given}
        for name, case in _cases(table.get("cases", {}), where).items()
    }
    varied = {p: v for p, v in _values(table, where).items() if p not in given}
    varied |= {place: values for place, values in given.items() if values[1:]}
    told = "--seeds"
    if seeds is None and "seeds" in table:
        found, told = table["seeds"], f"{where} seeds"
        seeds = ",".join(map(str, found)) if isinstance(found, list) else str(found)
    asked = Asked(varied, cases, None if seeds is None else _spans(seeds, told))
    _check(sections, asked)
    return sections, asked


def _given(texts: Iterable[str]) -> dict[tuple[str, str], list[Any]]:
    """Return the values that the command line gives, by section and key.

    A comma parts values where a key takes one; where it takes a list, and in [data],
    whose texts may hold commas, the key is given again.
    """
    given: dict[tuple[str, str], list[Any]] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        if not (equals and "." in place):
            raise ConfigError(
                f"--set needs SECTION.KEY=VALUE; got {text!r}. Give for example "
                "--set finetune.epochs=3."
            )
        section, key, item = option_at(place.strip(), f"--set {text}")
        parted = section in FOLDERS and not item.is_list
        each = [part.strip() for part in (value.split(",") if parted else [value])]
        if len(each) > 1 and not all(each):
            raise ConfigError(
                f"--set {text}: there must be a value beside each comma. Leave the "
                "comma out."
            )
        for part in each:
            try:
                given.setdefault((section, key), []).append(item.from_text(part))
            except ValueError:
                kind = "sparse" if section == "compare" else "experiment"
                raise ConfigError(
                    f"--set {place}={part}: {key} must be {item.noun}; got {part!r}. "
                    f"See 'mpilayer config {kind}'."
                ) from None
    return given


def changed(sections: Sections, case: Case) -> dict[str, dict[str, Any]]:
    """Return sections with the values of a case."""
    new = {name: dict(values) for name, values in sections.items()}
    for (section, key), value in case.items():
        new.setdefault(section, {})[key] = value
    return new


def _values(table: Mapping[str, Any], where: str) -> dict[tuple[str, str], list[Any]]:
    """Return the varied values of the section [sweep]."""
    varied = {}
    rest = {key: value for key, value in table.items() if key not in ("seeds", "cases")}
    for place, values in _flat(rest, where):
        section, key, item = option_at(place, where)
        if not isinstance(values, list) or not values:
            example = "VALUE" if values == [] else values
            raise ConfigError(
                f"{where}: {place} must be a list of at least one value; got "
                f"{values!r}. Write [{example}]."
            )
        varied[section, key] = [item.from_file(value) for value in values]
    return varied


def _cases(found: Any, where: str) -> dict[str, Case]:
    """Return the cases of the section [sweep]."""
    cases: dict[str, Case] = {}
    for name, case in found.items() if isinstance(found, dict) else [("cases", found)]:
        if not (isinstance(case, dict) and _NAME.fullmatch(name)):
            raise ConfigError(
                f"{where}: a case must be a table, with a name of letters, digits and "
                "hyphens that is not 'complete' and has no ending; got "
                f"{name!r}. Write [{SWEEP}.cases.NAME]."
            )
        places = [(option_at(p, f"{where} {name}"), v) for p, v in _flat(case, where)]
        cases[name] = {(s, k): item.from_file(v) for (s, k, item), v in places}
    return cases


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


def _spans(text: str, where: str) -> tuple[range, ...]:
    """Return the seeds that a text such as ``0,3,7-9`` names."""
    parts = [_SPAN.fullmatch(part.strip()) for part in text.split(",")]
    spans = [range(int(p[1]), int(p[2] or p[1]) + 1) for p in parts if p]
    if len(spans) < len(parts) or not all(spans):
        raise ConfigError(
            f"{where} must be whole numbers and spans of them; got {text!r}. Give for "
            "example 0-9 or 0,3,7-9."
        )
    ordered = sorted(spans, key=lambda span: span.start)
    if any(a.stop > b.start for a, b in pairwise(ordered)):
        raise ConfigError(
            f"{where} must be different numbers; got {text!r}. Name each once."
        )
    return tuple(spans)


def _check(sections: Sections, asked: Asked) -> None:
    """Check that a sweep can vary what it is asked to."""
    for section, key in (*asked.varied, *(k for c in asked.cases.values() for k in c)):
        fault, place = "", f"{section}.{key}"
        if section not in _VARIED:
            fault = f"varies {', '.join(_VARIED)}; got {place}. Give it one value."
        elif asked.spans is not None and key == "seed" and section != "data":
            fault = f"with seeds sets those of all steps; got {place}. Leave one out."
        elif section in FOLDERS and section not in sections:
            fault = (
                f"varies what the experiment has; got {place}, and there is no such "
                f"section. Add [{section}] to the file."
            )
        if fault:
            raise ConfigError(f"a sweep {fault}")


def _short(value: Any) -> str:
    """Return a value as a part of a folder's name."""
    entries = value if isinstance(value, tuple) else (value,)
    text = "-".join(f"{v:g}" if isinstance(v, float) else str(v) for v in entries)
    return re.sub(r"[^\w.+-]+", "-", text)[-_LONGEST:].strip(".-") or "none"


def _by_key(values: Case) -> dict[str, Any]:
    return {".".join(place): value for place, value in values.items()}
