"""Puts a report together, from its head to its end, and writes it."""

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from mpilayer import __version__, environment, files
from mpilayer.errors import ConfigError
from mpilayer.files import PAGES, check_new, check_parent
from mpilayer.report import deep, figures, html, sparse, words
from mpilayer.report.run import PREDICTORS, Run, collect

_MOST_NAMES = 4
_WORDS = "words"  # the look of tables that are set flush left
_PACKAGES = ("numpy", "scipy", "h5py", "mpi4py", "matplotlib")


def write_report(
    runs: Sequence[Path],
    out: Path,
    folder: Path | None = None,
    replace: bool = False,
    data: Path | None = None,
) -> list[str]:
    """Write a page about runs; return remarks on what could not be shown.

    Every figure becomes a file of ``folder``, too. With ``replace`` what is there
    already gives way. ``data`` is where the runs' data set is now. ConfigError,
    FileError: matplotlib is missing, a run is named twice, or a file can't be written
    so. DataError, CheckpointError: ``data`` is that of no run; there is no run.
    """
    check_outputs(out, folder, replace)
    found = collect(runs, data)
    sections = sections_of(found)
    names = [run.name for run in found]
    title = ", ".join(names)
    if len(names) > _MOST_NAMES:
        title = f"{names[0]} and {len(names) - 1} more runs"
    write_page(title, words.count(len(found), "run"), sections, out, folder)
    return [f"{run.name}: {remark}" for run in found for remark in run.remarks]


def write_page(
    title: str,
    what: str,
    sections: Sequence[html.Section],
    out: Path,
    folder: Path | None = None,
) -> None:
    """Write a page about ``what``, and its figures into a folder, too."""
    lead = (
        f"{what}; written by mpilayer {__version__} on "
        f"{datetime.now():%Y-%m-%d at %H:%M}. Everything is in this one file, and "
        "nothing is loaded from elsewhere."
    )
    text = html.page(f"mpilayer: {title}", lead, sections)
    if folder is not None:
        _write_figures(sections, folder)
    files.write(out, text)


def sections_of(runs: Sequence[Run]) -> list[html.Section]:
    """Return all sections of a report."""
    sections = [html.Section("overview", "At a glance", [_overview(runs)])]
    stacks = [run for run in runs if run.kind == "deep"]
    others = [run for run in runs if run.kind != "deep"]
    for name, room, some in (("deep", deep, stacks), ("sparse", sparse, others)):
        if some:
            title = f"{name.capitalize()} autoencoders"
            sections.append(html.Section(name, title, list(room.together(some))))
        for run in some:
            what = "Comparison" if run.kind == "comparison" else "Run"
            about = f"run-{run.place}", f"{what} {run.name}", list(room.alone(run))
            sections.append(html.Section(*about, within=True))
    title = "Configuration and environment"
    return [*sections, html.Section("environment", title, list(_ending(runs)))]


def _write_figures(sections: Sequence[html.Section], folder: Path) -> None:
    """Write the pictures of a report as files, ``.svg`` or ``.png``."""
    folder.mkdir(exist_ok=True)
    parts = [part for section in sections for part in section.content]
    for drawn in (part for part in parts if isinstance(part, html.Figure)):
        for name, picture in drawn.named():
            if isinstance(picture.content, bytes):
                files.write(folder / f"{name}.png", picture.content)
                continue
            # Alone, a picture brings the colours that the page has for all.
            opening, _, rest = picture.content.partition(">")
            colours = f"<style>{html.VARIABLES}</style>"
            look = f"{colours}<style>svg{{background:var(--paper)}}</style>"
            files.write(folder / f"{name}.svg", f"{opening}>{look}{rest}\n")


def check_outputs(out: Path, folder: Path | None, replace: bool) -> None:
    """Check that page and figures can be written, before anything is read.

    ConfigError: what is wrong with their names, or matplotlib is missing.
    """
    figures.check_available()
    check_new(out, "report.html", PAGES, replace)
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"--figures must name a folder; {folder} is a file. Choose another name."
        )
    if folder.is_dir() and any(folder.iterdir()) and not replace:
        raise ConfigError(
            f"--figures must name a new or empty folder; {folder} holds files. Choose "
            "another one, or write into it with --replace."
        )
    check_parent(folder, "--figures")


def _overview(runs: Sequence[Run]) -> html.Markup:
    """Return the table of all runs: only here are their main settings."""
    own: dict[str, str] = {}
    shared = ""
    for kind in ("deep", "sparse"):
        some = [run for run in runs if (run.kind == "deep") == (kind == "deep")]
        common, others = words.settings(some)
        own |= zip((run.place for run in some), others, strict=True)
        shared += f" All {kind} runs: {common}." if common else ""
    rows = []
    for run in runs:
        name = html.element("a", run.name, href=f"#run-{run.place}")
        rows.append([name, run.kind, own[run.place], _result(run), words.state(run)])
    return html.table(
        f"The runs, their main settings, and what they have reached.{shared}",
        ("run", "kind", "settings", "result", "state"),
        rows,
        class_=_WORDS,
    )


def _result(run: Run) -> str:
    if words.at(run.comparison, "runs", "exact", "gap", "shards") == 1:
        return html.NOTHING  # both runs are the same
    classes, labels = (words.label_error(run, task, "test") for task in PREDICTORS)
    error = words.digits(run.summary.get("test_error"))
    pca = words.digits(words.at(run.summary, "pca", "test"))
    gap = words.at(run.comparison, "runs", "exact", "gap", "measured")
    results = {
        "deep": {
            "{} wrong classes": words.percent(classes),
            "root mean square error of labels {}": words.digits(labels),
            f"reconstruction error {{}} (PCA {pca})": error,
        },
        "sparse": {"cost {}": words.short(run.summary.get("cost"), ".5g")},
        "comparison": {"gap {}": words.short(gap)},
    }
    known = {text: v for text, v in results[run.kind].items() if v != html.NOTHING}
    return ", ".join(text.format(v) for text, v in known.items()) or html.NOTHING


def _ending(runs: Sequence[Run]) -> Iterator[html.Markup]:
    """Yield configurations and environments."""
    yield html.paragraph(
        "What each step of a run was trained with: ranks, hosts and software."
    )
    yield _environments(runs)
    yield html.paragraph(
        "The machine on which this report was written, which need not be the "
        "one on which the runs were trained:"
    )
    here = [
        ["mpilayer", __version__],
        ["Python", sys.version.split()[0]],
        *([p, environment.installed(p) or "not installed"] for p in _PACKAGES),
        ["system", f"{platform.system()} {platform.release()}, {platform.machine()}"],
        ["host", platform.node()],
        ["cores", f"{len(environment.cores())} of {os.cpu_count()}"],
        *(["BLAS and threads", _library(one)] for one in threadpool_info()),
    ]
    yield html.table("This machine.", ("", "found here"), here, class_=_WORDS)
    yield html.paragraph("The effective configurations, defaults included:")
    for run in runs:
        title = html.element("summary", f"config.toml of {run.name}")
        yield html.element("details", title, html.element("pre", run.config_text))


def _environments(runs: Sequence[Run]) -> html.Markup:
    head = ("run", "step", "ranks", "hosts", "MPI", "mpilayer", "data", "digest")
    rows = []
    for run in runs:
        steps = {"": "pre-training" if run.kind == "deep" else "training"}
        for name, step in {"finetune": "fine-tuning", **PREDICTORS}.items():
            if f"{name}_ranks" in run.summary:
                steps[f"{name}_"] = step
        for prefix, step in steps.items():
            facts = (
                run.summary.get(f"{prefix}mpi") or html.NOTHING,
                run.section("created_by").get("mpilayer", html.NOTHING),
                run.section("data").get("name", html.NOTHING),
                str(run.section("data").get("digest", html.NOTHING))[:12],
            )
            where = words.ranks(run.summary, prefix) or html.NOTHING
            hosts = words.short(run.summary.get(f"{prefix}hosts"), ".0f")
            rows.append([run.name, step, where, hosts, *map(str, facts)])
    return html.table("Environment of the runs.", head, rows, class_=_WORDS)


def _library(one: dict[str, Any]) -> str:
    names = one.get("internal_api", "?"), one.get("version"), one.get("architecture")
    threads = words.count(one.get("num_threads"), "thread")
    return " ".join([*map(str, filter(None, names)), threads])
