"""Tables of numbers separated by commas."""

from pathlib import Path

import numpy as np

from mpilayer.arrays import Array64
from mpilayer.data.split import Split, whole_numbers
from mpilayer.errors import DataError

_LABEL = "label"


def read_csv(path: Path) -> dict[str, Split]:
    """Read a table; local.

    Parameters
    ----------
    path : Path
        A row a line. The first line is a header if none of its cells is a number, or
        one of them is ``label``; that column holds integer labels.

    Returns
    -------
    dict of str to Split
        ``train``; samples are float32.

    Raises
    ------
    DataError
        Not text, empty, lines of different lengths, or a cell that is not a number,
        with its line.
    """
    lines = _lines(path)
    header = _header(lines[0]) if lines else []
    first_line = 2 if header else 1
    rows = lines[first_line - 1 :]
    if not any(line.strip() for line in rows):
        raise DataError(f"{path} must hold at least one row of numbers; found none.")
    try:
        table = np.loadtxt(rows, np.float64, delimiter=",", comments=None, ndmin=2)
    except ValueError as error:
        found = _first_fault(rows, first_line) or str(error)
        raise DataError(
            f"{path} must hold numbers separated by commas, equally many a line; "
            f"{found}. Mend that line."
        ) from error
    try:
        return {"train": _split(table, header)}
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


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


def _split(table: Array64, header: list[str]) -> Split:
    if header and len(header) != table.shape[1]:
        raise DataError(
            "the header must name every column; "
            f"found {len(header)} names and {table.shape[1]} columns."
        )
    if _LABEL not in header:
        return Split(table)
    column = header.index(_LABEL)
    labels = whole_numbers(table[:, column])
    return Split(np.delete(table, column, axis=1), labels)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} must be a text file; found other bytes.") from error
    except OSError as error:
        raise DataError(
            f"{path} must be a readable file; {str(error.strerror).lower()}."
        ) from error


def _header(line: str) -> list[str]:
    """Return the names of the columns, or nothing if the line holds numbers."""
    names = [cell.strip().strip('"').lower() for cell in line.split(",")]
    if _LABEL in names or not any(map(_is_number, names)):
        return names
    return []


def _first_fault(rows: list[str], first_line: int) -> str | None:
    """Return the first bad line's fault; NumPy does not tell its number."""
    n_columns = 0
    for number, line in enumerate(rows, first_line):
        cells = line.split(",") if line.strip() else []
        n_columns = n_columns or len(cells)
        bad = next((cell for cell in cells if not _is_number(cell)), None)
        if bad is not None:
            return f"line {number} has {bad.strip()!r}"
        if cells and len(cells) != n_columns:
            return f"line {number} has {len(cells)} cells, those before {n_columns}"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
