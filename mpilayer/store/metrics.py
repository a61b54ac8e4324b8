"""Metrics: JSON lines, one file a writer, one line an event."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class MetricsWriter:
    """Appends lines to a file, each visible to readers at once. Local.

    Parameters
    ----------
    path : Path
        The file; what it holds is kept.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line; NaN and infinity become null, which JSON can hold."""
        self._file.write(lines_of([values]))
        self._file.flush()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def lines_of(values: Iterable[Mapping[str, Any]]) -> str:
    """Return lines as a file of metrics has them; NaN and infinity become null."""
    rows = ({k: _finite(v) for k, v in line.items()} for line in values)
    return "".join(json.dumps(row) + "\n" for row in rows)


def keep_until(path: Path, key: str, most: int) -> list[dict[str, Any]]:
    """Drop the lines after a number that they count by; return those that stay. Local.

    Parameters
    ----------
    path : Path
        The file; it may be missing, and its last line may be broken.
    key : str
        Such as ``epoch``.
    most : int
        Its value in the last line that stays.
    """
    lines = [line for line in MetricsReader(path).new_lines() if line[key] <= most]
    text = lines_of(lines)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return lines


class MetricsReader:
    """Reads a file of metrics that may still be growing. Local."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0

    def new_lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that were completed since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                yield json.loads(line)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
