"""Puts a report together, and writes it."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mpilayer import files
from mpilayer.errors import ConfigError
from mpilayer.files import PAGES, check_output
from mpilayer.report import deep, ending, figures, sparse
from mpilayer.report.collect import collect
from mpilayer.report.html import Figure, Section, page
from mpilayer.report.palette import VARIABLES
from mpilayer.report.run import Run

_MOST_NAMES = 4


def write_report(
    runs: Sequence[Path],
    out: Path,
    folder: Path | None = None,
    replace: bool = False,
    data: Path | None = None,
) -> list[str]:
    """Write a page about runs, and perhaps its figures as files.

    Parameters
    ----------
    runs : sequence of Path
        Their directories, at least one.
    out : Path
        The page.
    folder : Path, optional
        Where every figure becomes a file of its own, too; made if there is none.
    replace : bool
        A page that is there already gives way, and so do figures.
    data : Path, optional
        Where the runs' data set is now.

    Returns
    -------
    list of str
        What the user should know: remarks on what could not be shown.

    Raises
    ------
    ConfigError
        matplotlib is missing, ``out`` has another ending than ``.html`` or ``.htm`` or
        exists, or a run is named twice.
    DataError
        ``data`` is not a data set, or that of no run.
    FileError
        ``out`` or a figure can't be written.
    CheckpointError
        There is no run.
    """
    figures.check_available()
    _check_out(out, replace)
    if folder is not None:
        _check_folder(folder, replace)
    found = collect(runs, data)
    sections = sections_of(found)
    text = page(_title(found), ending.lead(found, datetime.now()), sections)
    if folder is not None:
        write_figures(sections, folder)
    files.write(out, text)
    return [f"{run.name}: {remark}" for run in found for remark in run.remarks]


def sections_of(runs: Sequence[Run]) -> list[Section]:
    """Return all sections of a report."""
    stacks = [run for run in runs if run.kind == "deep"]
    others = [run for run in runs if run.kind != "deep"]
    return [
        ending.overview(runs),
        *deep.sections(stacks),
        *sparse.sections(others),
        ending.ending(runs),
    ]


def write_figures(sections: Sequence[Section], folder: Path) -> None:
    """Write the pictures of a report as files, ``.svg`` or ``.png``."""
    folder.mkdir(exist_ok=True)
    for section in sections:
        for part in section.content:
            if isinstance(part, Figure):
                _write_figure(part, folder)


def _write_figure(drawn: Figure, folder: Path) -> None:
    for number, picture in enumerate(drawn.pictures, start=1):
        several = len(drawn.pictures) > 1
        name = f"{drawn.name}-{number}" if several else drawn.name
        path = folder / f"{name}{picture.suffix}"
        if isinstance(picture.content, bytes):
            files.write(path, picture.content)
            continue
        # Alone, a picture brings the colours that the page has for all.
        end = picture.content.index(">") + 1
        opening, rest = picture.content[:end], picture.content[end:]
        paper = "<style>svg{background:var(--paper)}</style>"
        files.write(path, f"{opening}<style>{VARIABLES}</style>{paper}{rest}\n")


def _title(runs: Sequence[Run]) -> str:
    names = [run.name for run in runs]
    if len(names) > _MOST_NAMES:
        return f"mpilayer: {names[0]} and {len(names) - 1} more runs"
    return f"mpilayer: {', '.join(names)}"


def _check_out(out: Path, replace: bool) -> None:
    """Check that the page can be written, before anything is read."""
    if out.is_dir():
        raise ConfigError(
            f"-o must name a file; {out} is a folder. Give -o {out / 'report.html'}."
        )
    check_output(out, PAGES, replace)
    _check_parent(out, "-o")


def _check_folder(folder: Path, replace: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"--figures must name a folder; {folder} is a file. Choose another name."
        )
    if folder.is_dir() and any(folder.iterdir()) and not replace:
        raise ConfigError(
            f"--figures must name a new or empty folder; {folder} holds files. Choose "
            "another one, or write into it with --replace."
        )
    _check_parent(folder, "--figures")


def _check_parent(path: Path, option: str) -> None:
    parent = path.absolute().parent
    if not parent.is_dir():
        raise ConfigError(
            f"{option} must lie in a folder that exists; there is no {parent}. Make "
            "it, or choose another one."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{option} must lie in a folder that can be written; {parent} can't be. "
            "Choose another one, or mend its permissions."
        )
