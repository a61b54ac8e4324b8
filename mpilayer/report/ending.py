"""How a report begins and ends: the runs, their settings, and what they ran on."""

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from threadpoolctl import threadpool_info

from mpilayer import __version__, environment
from mpilayer.report.html import (
    Markup,
    Section,
    element,
    folded,
    paragraph,
    table,
)
from mpilayer.report.run import PREDICTORS, Run, mapping
from mpilayer.report.words import (
    NOTHING,
    at,
    count,
    digits,
    label_error,
    percent,
    ranks,
    settings,
    short,
    state,
)

_PACKAGES = ("numpy", "scipy", "h5py", "mpi4py", "matplotlib")


def lead(runs: Sequence[Run], now: datetime) -> list[Markup]:
    """Return what stands below the title."""
    runs_ = count(len(runs), "run")
    return [
        paragraph(
            f"{runs_}; written by mpilayer {__version__} on {now:%Y-%m-%d at %H:%M}. "
            "Everything is in this one file, and nothing is loaded from elsewhere."
        )
    ]


def overview(runs: Sequence[Run]) -> Section:
    """Return the section that lists all runs: only here are their main settings."""
    own: dict[str, str] = {}
    shared = ""
    for kind in ("deep", "sparse"):
        some = [run for run in runs if (run.kind == "deep") == (kind == "deep")]
        common, others = settings(some)
        own |= zip((run.place for run in some), others, strict=True)
        shared += f" All {kind} runs: {common}." * bool(common)
    rows = [
        [
            element("a", run.name, href=f"#run-{run.place}"),
            run.kind,
            own[run.place],
            _result(run),
            state(run),
        ]
        for run in runs
    ]
    listed = table(
        f"The runs, their main settings, and what they have reached.{shared}",
        ("run", "kind", "settings", "result", "state"),
        rows,
    )
    return Section("overview", "At a glance", (_in_words(listed),))


def ending(runs: Sequence[Run]) -> Section:
    """Return the section with configurations and environments."""
    config = [folded(f"config.toml of {r.name}", _pre(r.config_text)) for r in runs]
    return Section(
        "environment",
        "Configuration and environment",
        (
            paragraph(
                "What each step of a run was trained with: ranks, hosts and software."
            ),
            _in_words(_environments(runs)),
            paragraph(
                "The machine on which this report was written, which need not be the "
                "one on which the runs were trained:"
            ),
            _in_words(_here()),
            paragraph("The effective configurations, defaults included:"),
            *config,
        ),
    )


def _environments(runs: Sequence[Run]) -> Markup:
    rows = [
        [
            run.name,
            words,
            ranks(run.summary, prefix) or NOTHING,
            short(run.summary.get(f"{prefix}hosts"), ".0f"),
            str(run.summary.get(f"{prefix}mpi") or NOTHING),
            str(run.section("created_by").get("mpilayer", NOTHING)),
            str(run.section("data").get("name", NOTHING)),
            str(run.section("data").get("digest", NOTHING))[:12],
        ]
        for run in runs
        for words, prefix in _steps(run)
    ]
    head = ("run", "step", "ranks", "hosts", "MPI", "mpilayer", "data", "digest")
    return table("Environment of the runs.", head, rows)


def _steps(run: Run) -> Iterator[tuple[str, str]]:
    yield ("pre-training" if run.kind == "deep" else "training"), ""
    steps = {"finetune": "fine-tuning", **PREDICTORS}
    yield from (
        (words, f"{name}_")
        for name, words in steps.items()
        if f"{name}_ranks" in run.summary
    )


def _here() -> Markup:
    rows = [
        ["mpilayer", __version__],
        ["Python", sys.version.split()[0]],
        *([name, _version(name)] for name in _PACKAGES),
        ["system", f"{platform.system()} {platform.release()}, {platform.machine()}"],
        ["host", platform.node()],
        ["cores", f"{len(environment.cores())} of {os.cpu_count()}"],
        *(["BLAS and threads", _library(one)] for one in threadpool_info()),
    ]
    return table("This machine.", ("", "found here"), rows)


def _library(one: dict[str, Any]) -> str:
    details = [
        str(one.get("internal_api", "?")),
        str(one.get("version") or ""),
        str(one.get("architecture") or ""),
        count(one.get("num_threads"), "thread"),
    ]
    return " ".join(part for part in details if part)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _result(run: Run) -> str:
    if run.kind == "deep":
        error = digits(run.summary.get("test_error"))
        pca = digits(at(run.summary, "pca", "test"))
        wrong = percent(label_error(run, "classify", "test"))
        off = digits(label_error(run, "regress", "test"))
        found = [f"{wrong} wrong classes"] * (wrong != NOTHING)
        found += [f"root mean square error of labels {off}"] * (off != NOTHING)
        found += [f"reconstruction error {error} (PCA {pca})"] * (error != NOTHING)
        return ", ".join(found) or NOTHING
    if run.kind == "sparse":
        cost = short(run.summary.get("cost"), ".5g")
        return f"cost {cost}" if cost != NOTHING else NOTHING
    if run.comparison.get("ranks") == 1:
        return NOTHING  # both runs are the same
    gap = short(at(mapping(run.comparison), "runs", "exact", "gap", "measured"))
    return f"gap {gap}" if gap != NOTHING else NOTHING


def _in_words(listed: Markup) -> Markup:
    return element("div", listed, class_="words")


def _pre(text: str) -> Markup:
    return element("pre", text)
