"""Tables of numbers separated by commas."""

import re
from csv import reader
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import memory
from mpilayer.arrays import AnyArray, Array64
from mpilayer.data.preparation import Preparation
from mpilayer.data.split import Split, numbers_or_texts, warn_of_labels
from mpilayer.data.table import told_of
from mpilayer.errors import DataError, reading, unknown

_LABEL = "label"
_NAMELESS = re.compile(r"(unnamed: .*)?", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
# Of the bytes of a file: its text, lines and numbers.
_HELD = 4
_SEPARATORS = {";": "semicolons", "\t": "tabs"}
_MEND = "Mend that line, or save the table so."


@dataclass(frozen=True, eq=False)
class Table:
    """What a table holds."""

    x: Array64  # (n_samples, n_visible)
    labels: AnyArray | None  # (n_samples,), numbers or texts
    columns: tuple[str, ...]  # names of those of x, if a header names them
    remark: str  # what was taken for header, index and labels


def read_csv(path: Path, labels: str = "", needed: bool = True) -> Table:
    """Read a table with a row a line; local.

    What is taken for header and index, docs/data.md says. ``labels`` are in the column
    of that name, small or capital, or number from 1, which must be there if ``needed``;
    empty: that called ``label``, if there is one.

    DataError: anything but lines of equally many numbers between commas, with a label
    each; or what may be meant otherwise, such as decimal commas.
    """
    with reading(path, "a text file of numbers in UTF-8"):
        memory.demand(_HELD * path.stat().st_size, path)
        text = path.read_text(encoding="utf-8-sig")
        with told_of(path):
            return _table(text, labels, needed)


def csv_text(split: Split, preparation: Preparation) -> str:
    """Return samples as a table that ``read_csv`` reads back to the bit.

    ``label`` is last, if there are labels. Without names of columns in the preparation
    they are ``unit_1`` and so on.
    """
    n_columns = split.x.shape[1]
    names = list(preparation.columns) or [f"unit_{k + 1}" for k in range(n_columns)]
    line = ",".join(["%.9g"] * n_columns)  # nine digits tell all float32 apart
    rows = [line % tuple(row) for row in np.asarray(split.x)]
    if split.labels is not None:
        names.append(_LABEL)
        labels = map(_quoted, preparation.names(split.labels))
        rows = [f"{row},{k}" for row, k in zip(rows, labels, strict=True)]
    return "\n".join([",".join(map(_quoted, names)), *rows, ""])


def _quoted(cell: object) -> str:
    text = str(cell)
    if not re.search(r'[",\n]', text):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def _table(text: str, labels: str, needed: bool) -> Table:
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines:
        _check_separator(*lines[0])
    header = _header(lines[0][1], labels) if lines else []
    rows = lines[1:] if header else lines
    if not rows:
        raise DataError("the table must hold at least one row of numbers; found none.")
    n_columns, n_index = len(_cells(rows[0][1])), _n_index(header)
    _check_header(header, n_columns, n_index)
    column = _label_column(header, n_columns, labels, needed)
    table, cells = _numbers(rows, n_index, column, header)
    named = not _are_counted(header)
    if not named:
        _check_nameless(table, rows, column)
    kept = [k for k in range(n_index, n_columns) if k != column]
    columns = tuple(header[k] for k in kept) if named else ()
    found, place = None, "none"
    if column is None:
        warn_of_labels(columns, "column", "is taken for a part of the samples")
    else:
        found = numbers_or_texts(cells, [f"line {n}" for n, _ in rows])
        place = f"column {column + 1}"
    several = "column 1" if n_index == 1 else f"columns 1 to {n_index}"
    remark = (
        f"header: {f'line {lines[0][0]}' if header else 'none'}; "
        f"index: {f'{several}, left out' if n_index else 'none'}; labels: {place}"
    )
    return Table(table[:, kept], found, columns, remark)


def _check_separator(number: int, line: str) -> None:
    found = [name for mark, name in _SEPARATORS.items() if mark in line.strip()]
    if found and len(_cells(line)) == 1:
        raise DataError(
            f"cells must be separated by commas; those of line {number} are separated "
            f"by {found[0]}. Save the table with commas, and with decimal points."
        )


def _header(line: str, labels: str) -> list[str]:
    """Return the names of the columns, or nothing if the line holds numbers."""
    names = _cells(line)
    small = [name.lower() for name in names]
    named = names[_n_index(names) :]
    is_named = labels and not _is_number(labels) and labels.lower() in small
    if is_named or _LABEL in small or _are_counted(named):
        return names if named else []
    return [] if any(map(_is_number, names)) else names


def _label_column(
    header: list[str], n_columns: int, labels: str, needed: bool
) -> int | None:
    """Return the place of the labels' column, None if there is none."""
    small, wanted = [name.lower() for name in header], (labels or _LABEL).lower()
    if small.count(wanted) > 1:
        raise DataError(
            f"one column at most must be called {wanted!r}; found "
            f"{small.count(wanted)}. Rename or remove the others."
        )
    if wanted in small:
        return small.index(wanted)
    if labels.isdecimal() and 1 <= int(labels) <= n_columns:
        return int(labels) - 1
    if not labels or not needed:
        return None
    if header:
        names = [name for name in header if name]
        raise DataError(f"--labels: {unknown('column', labels, names)}")
    raise DataError(
        f"--labels must be the number of a column, 1 to {n_columns}, where no header "
        f"names them; got {labels!r}. Give a number, or name the columns in the first "
        "line."
    )


def _n_index(header: list[str]) -> int:
    """Return how many columns at the beginning have no name."""
    return len(list(takewhile(_NAMELESS.fullmatch, header)))


def _are_counted(names: list[str]) -> bool:
    """Tell whether names say nothing: 0, 1, 2, … in order, or none."""
    return names == [str(k) for k in range(len(names))]


def _check_header(header: list[str], n_columns: int, n_index: int) -> None:
    if header and len(header) != n_columns:
        raise DataError(
            "the header must name every column; "
            f"found {len(header)} names and {n_columns} columns. Mend it; numbers need "
            "decimal points, not commas."
        )
    nameless = [k for k, name in enumerate(header) if _NAMELESS.fullmatch(name)]
    if len(nameless) > n_index:
        raise DataError(
            "all columns must have names, but for an index at the beginning; found "
            f"none for column {nameless[n_index] + 1}. Name it or remove it."
        )


def _check_nameless(
    table: Array64, rows: list[tuple[int, str]], column: int | None
) -> None:
    """Refuse what names of columns would explain."""
    decimals = all(_DECIMAL_COMMA.fullmatch(line.strip()) for _, line in rows)
    if column is None and decimals:
        raise DataError(
            "numbers must have decimal points; found two whole numbers a line, or one "
            f"with a decimal comma: {rows[0][1].strip()!r}. Write points; if there are "
            "two columns, name them in the first line."
        )
    first = table[:, 0]
    counts = np.array_equal(first - first[0], np.arange(len(first)))
    if len(first) > 2 and first[0] in (0, 1) and counts:
        raise DataError(
            "columns without names must hold samples; found the numbers of the rows in "
            "the first one. Remove it; if it is meant, name the columns in the first "
            "line."
        )


def _numbers(
    rows: list[tuple[int, str]], n_index: int, column: int | None, header: list[str]
) -> tuple[Array64, list[str]]:
    """Return all numbers, and the cells of the labels' column, which is 0 there."""
    labels: list[str] = []

    def label(cell: str) -> float:
        labels.append(cell.strip())
        return 0.0

    # An index may hold anything.
    special: dict[int | str, Any] = {k: lambda _: 0.0 for k in range(n_index)}
    if column is not None:
        special[column] = label
    form: dict[str, Any] = {"delimiter": ",", "comments": None, "quotechar": '"'}
    lines = [line for _, line in rows]
    try:
        table = np.loadtxt(lines, converters=special, encoding=None, ndmin=2, **form)
        return table, labels
    except ValueError as error:
        fault = _first_fault(rows, {*range(n_index), column}, header)
        raise DataError(
            "lines must hold numbers with decimal points separated by commas, equally "
            f"many a line; {fault or f'{error}. {_MEND}'}"
        ) from error


def _first_fault(
    rows: list[tuple[int, str]], free: set[int | None], header: list[str]
) -> str | None:
    """Return fault and remedy of the first bad line, which NumPy does not number."""
    n_columns = len(_cells(rows[0][1]))
    for number, line in rows:
        cells = _cells(line)
        for k, cell in enumerate(cells):
            if k in free or _is_number(cell):
                continue
            name = header[k] if k < len(header) else str(k + 1)
            remedy = (
                f"If the texts of that column are classes, give --labels {name}; else "
                "leave it out, or write numbers in their place."
            )
            remedy = remedy if any(map(str.isalpha, cell)) else _MEND
            return f"line {number} has {cell!r} in column {name}. {remedy}"
        if len(cells) != n_columns:
            many = f"{len(cells)} cells, those before {n_columns}"
            return f"line {number} has {many}. {_MEND}"
    return None


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(reader([line], skipinitialspace=True))]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
