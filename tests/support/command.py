"""Command lines as users type them; see ``launch.run`` for the options."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.conftest import contents
from tests.support import launch


def call(folder: Path, line: str, **options: object) -> launch.Result:
    """Carry a line out in a folder; return how that ended."""
    return launch.run(*line.split(), cwd=folder, **options)


def said(folder: Path, line: str, **options: object) -> str:
    """Demand success; return what was printed."""
    return call(folder, line, **options).ok().stdout


def found(folder: Path, line: str, **options: object) -> dict[str, Any]:
    """Return what a line prints as JSON."""
    return json.loads(said(folder, f"{line} --json", **options))


def refuse(folder: Path, line: str, *words: str, **options: object) -> None:
    """Demand a refusal with these words, which leaves the folder as it was."""
    before = contents(folder)
    result = call(folder, line, **options)
    launch.assert_user_error(result, *words)
    assert result.stdout == ""
    assert contents(folder) == before
