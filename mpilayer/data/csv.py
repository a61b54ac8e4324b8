"""Tables of numbers separated by commas."""

import re
from collections.abc import Callable
from csv import reader
from pathlib import Path

import numpy as np

from mpilayer import memory
from mpilayer.arrays import AnyArray, Array64
from mpilayer.data.split import Split, whole_numbers
from mpilayer.errors import DataError, reading

_LABEL = "label"
_NAMELESS = re.compile(r"(unnamed: .*)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
# Of the bytes of a file: its text, lines and numbers.
_HELD = 4


def read_csv(path: Path) -> tuple[Split, str]:
    """Read a table; local.

    Parameters
    ----------
    path : Path
        A row a line. The first line is a header if none of its names is a number, they
        are 0, 1, 2, … in order, or one of them is ``label``; that column holds integer
        labels. Columns without a name (or ``Unnamed: 0``, as pandas reads and writes
        it) at the beginning are an index, and left out.

    Returns
    -------
    split : Split
        Samples are float32.
    remark : str
        What was taken for header, index and labels.

    Raises
    ------
    DataError
        Not text, empty, lines of different lengths, a cell that is not a number, with
        its line; two columns ``label``, a column without a name behind others; or,
        without names, a first column that counts the rows, or what may be one column
        with decimal commas.
    """
    with reading(path, "a text file of numbers in UTF-8"):
        memory.demand(_HELD * path.stat().st_size, path)
        return _read(path)


def csv_text(split: Split) -> str:
    """Return samples as a table that ``read_csv`` reads back to the bit.

    Parameters
    ----------
    split : Split
        The columns are ``unit_1`` and so on; ``label`` is last, if there are labels.
    """
    n_columns = split.x.shape[1]
    names = [f"unit_{k + 1}" for k in range(n_columns)]
    line = ",".join(["%.9g"] * n_columns)  # nine digits tell all float32 apart
    rows = [line % tuple(row) for row in split.x]
    if split.labels is not None:
        names.append(_LABEL)
        rows = [f"{row},{k}" for row, k in zip(rows, split.labels, strict=True)]
    return "\n".join([",".join(names), *rows, ""])


def _read(path: Path) -> tuple[Split, str]:
    text = path.read_text(encoding="utf-8-sig")
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    header = _header(lines[0][1]) if lines else []
    rows = lines[1:] if header else lines
    if not rows:
        raise DataError(f"{path} must hold at least one row of numbers; found none.")
    n_index = _n_index(header)
    try:
        _check_header(header, len(_cells(rows[0][1])), n_index)
        table = _numbers(rows, n_index)
        if _are_counted(header):
            _check_nameless(table, rows)
        split = _split(table[:, n_index:], header[n_index:])
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return split, _remark(lines[0][0], header, n_index)


def _header(line: str) -> list[str]:
    """Return the names of the columns, or nothing if the line holds numbers."""
    names = [cell.lower() for cell in _cells(line)]
    named = names[_n_index(names) :]
    if _LABEL in names or _are_counted(named):
        return names if named else []
    return [] if any(map(_is_number, names)) else names


def _n_index(header: list[str]) -> int:
    """Return how many columns at the beginning have no name."""
    named = (k for k, name in enumerate(header) if not _NAMELESS.fullmatch(name))
    return next(named, len(header))


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
    if header.count(_LABEL) > 1:
        raise DataError(
            f"one column at most must be called {_LABEL!r}; found "
            f"{header.count(_LABEL)}. Rename or remove the others."
        )
    nameless = [k for k, name in enumerate(header) if _NAMELESS.fullmatch(name)]
    if len(nameless) > n_index:
        raise DataError(
            "all columns must have names, but for an index at the beginning; found "
            f"none for column {nameless[n_index] + 1}. Name it or remove it."
        )


def _check_nameless(table: Array64, rows: list[tuple[int, str]]) -> None:
    """Refuse what names of columns would explain."""
    if all(_DECIMAL_COMMA.fullmatch(line.strip()) for _, line in rows):
        raise DataError(
            "numbers must have decimal points; found two whole numbers a line, or one "
            f"with a decimal comma: {rows[0][1].strip()!r}. Write points; if there are "
            "two columns, name them in the first line."
        )
    counted = table[:, 0] - table[0, 0]
    if len(table) > 2 and table[0, 0] in (0, 1) and _counts(counted):
        raise DataError(
            "columns without names must hold samples; found the numbers of the rows in "
            "the first one. Remove it; if it is meant, name the columns in the first "
            "line."
        )


def _counts(column: AnyArray) -> bool:
    return np.array_equal(column, np.arange(len(column)))


def _numbers(rows: list[tuple[int, str]], n_index: int) -> Array64:
    # An index may hold anything.
    skipped: dict[int | str, Callable[[str], float]] = {
        k: lambda _: 0.0 for k in range(n_index)
    }
    try:
        table: Array64 = np.loadtxt(
            [line for _, line in rows],
            np.float64,
            delimiter=",",
            comments=None,
            quotechar='"',
            converters=skipped,
            encoding=None,
            ndmin=2,
        )
        return table
    except ValueError as error:
        found = _first_fault(rows, n_index) or str(error)
        raise DataError(
            "must hold numbers with decimal points separated by commas, equally many "
            f"a line; {found}. Mend that line, or save the table so."
        ) from error


def _split(table: Array64, header: list[str]) -> Split:
    if _LABEL not in header:
        return Split(table)
    column = header.index(_LABEL)
    labels = whole_numbers(table[:, column])
    return Split(np.delete(table, column, axis=1), labels)


def _remark(first_line: int, header: list[str], n_index: int) -> str:
    names = f"line {first_line}" if header else "none"
    index = "none"
    if n_index:
        index = "column 1" if n_index == 1 else f"columns 1 to {n_index}"
        index += ", left out"
    labels = f"column {header.index(_LABEL) + 1}" if _LABEL in header else "none"
    return f"header: {names}; index: {index}; labels: {labels}"


def _first_fault(rows: list[tuple[int, str]], n_index: int) -> str | None:
    """Return the first bad line's fault; NumPy does not tell its number."""
    n_columns = len(_cells(rows[0][1]))
    for number, line in rows:
        cells = _cells(line)
        bad = next((cell for cell in cells[n_index:] if not _is_number(cell)), None)
        if bad is not None:
            return f"line {number} has {bad!r}"
        if len(cells) != n_columns:
            return f"line {number} has {len(cells)} cells, those before {n_columns}"
    return None


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(reader([line], skipinitialspace=True))]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
