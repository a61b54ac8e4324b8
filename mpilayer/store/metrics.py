"""Metrics: JSON lines, one file a writer, one line an event.

Nothing that decides a result is read from them. So a line that cannot be written does
not end a run, and one that is damaged is left out, wherever it stands.
"""

import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from mpilayer import files
from mpilayer.errors import DamageWarning

# Of each kind of file: counts from 0, seconds, and measures, which may be null.
_BUSY = ("training", "allreduce", "evaluating")
_TUNING = (("epoch",), _BUSY, ("train_loss", "validation_error"))
_LAYER = ("started", "training", "transform", "monitor", "waiting", "sending")
_EVALUATION = ("seconds", "computing", "allreduce")
_LINES = {
    "layer": (("epoch", "used"), _LAYER, ("train_error", "validation_error")),
    "finetune": _TUNING,
    "classify": _TUNING,
    "regress": _TUNING,
    "sparse": (("evaluation", "iteration"), _EVALUATION, ("cost",)),
    "stack": ((), ("seconds",), ("validation_error",)),
}
# Perhaps of each rank: which or where it is, and so many seconds.
_RANKS = (("team", int, 2), ("ranks", str, 3))
# More than any run has, and no trouble for those that compute with them.
_MOST_COUNT, _MOST = 10**9, 1e200


class MetricsWriter:
    """Appends lines to a file, each visible to readers at once. Local.

    A link is not followed. Lines that cannot be written now, of which a FileWarning
    tells, are written with the next one.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file, self._pending = path, -1, ""

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line; NaN and infinity become null, which JSON can hold."""
        self._pending += lines_of([values])
        with files.optional(self._path, "lines of it may be missing"):
            self._append(self._pending.encode())
            self._pending = ""

    def _append(self, content: bytes) -> None:
        """Write all of it, or nothing if that can be had."""
        if self._file < 0:
            self._path.parent.mkdir(exist_ok=True)  # somebody may have removed it
            how = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            self._file = os.open(self._path, how, 0o666)
        before = os.fstat(self._file).st_size
        if before and os.pread(self._file, 1, before - 1) != b"\n":
            content = b"\n" + content  # what stands there has come to no end
        try:
            while content:
                content = content[os.write(self._file, content) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, before)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1


def lines_of(values: Iterable[Mapping[str, Any]]) -> str:
    """Return lines as a file of metrics has them; NaN and infinity become null."""
    rows = ({k: _finite(v) for k, v in line.items()} for line in values)
    return "".join(json.dumps(row) + "\n" for row in rows)


def keep_until(path: Path, key: str, most: int) -> list[dict[str, Any]]:
    """Drop the lines in which ``key``, such as ``epoch``, is more than ``most``. Local.

    Returns those that stay. The file may be missing; damaged lines are dropped. Of
    either a DamageWarning tells.
    """
    lines = [line for line in MetricsReader(path).new_lines() if line[key] <= most]
    if len(lines) != most:
        warnings.warn(
            f"{path} must have {most} lines; {len(lines)} are whole. What is told of "
            "times and errors on the way lacks the others.",
            DamageWarning,
            stacklevel=2,
        )
    path.parent.mkdir(exist_ok=True)
    files.write(path, lines_of(lines))
    return lines


class MetricsReader:
    """Reads a file of metrics that may still be growing, or be missing. Local.

    ``damaged`` lines so far were left out: torn ones, and such as no run writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self._position = 0
        self._kind = _LINES.get(path.stem.partition("-")[0], ((), (), ()))

    def new_lines(self) -> Iterator[dict[str, Any]]:
        """Yield lines completed since the last call; OSError if they can't be read."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                values = None
                with suppress(ValueError, RecursionError):
                    values = json.loads(line)
                if isinstance(values, dict) and self._is_whole(values):
                    yield values
                else:
                    self.damaged += 1

    def _is_whole(self, line: Mapping[str, Any]) -> bool:
        counts, seconds, measures = self._kind
        found = (line.get(key, "") for key in measures)
        return (
            all(_is_number(line.get(key), 0, _MOST_COUNT, int) for key in counts)
            and all(_is_number(line.get(key), 0, _MOST) for key in seconds)
            and all(v is None or _is_number(v, -_MOST, _MOST) for v in found)
            and all(_is_list(line.get(key, []), kind, n) for key, kind, n in _RANKS)
        )


def _is_list(value: Any, kind: type, n_seconds: int) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, list)
        and len(one) == 1 + n_seconds
        and type(one[0]) is kind
        and all(_is_number(seconds, 0, _MOST) for seconds in one[1:])
        for one in value
    )


def _is_number(value: Any, least: float, most: float, *kinds: type) -> bool:
    return type(value) in (kinds or (int, float)) and least <= value <= most


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
