"""Command lines as users type them; see ``launch.run`` for the options."""

import json
import shlex
from pathlib import Path
from typing import Any

from tests.support import launch
from tests.support.small import contents


def call(folder: Path, line: str, ranks: int = 0, **options: object) -> launch.Result:
    """Carry a line out in a folder; return how that ended.

    ``[mpiexec -n RANKS] [mpilayer] COMMAND ...``
    """
    words = shlex.split(line)
    if words[:2] == ["mpiexec", "-n"]:
        ranks, words = int(words[2]), words[3:]
    words = words[words[:1] == ["mpilayer"] :]
    return launch.run(*words, cwd=folder, ranks=ranks, **options)


def said(folder: Path, line: str, **options: object) -> str:
    """Demand success; return what was printed."""
    return call(folder, line, **options).ok().stdout


def told(folder: Path, line: str, **options: object) -> str:
    """Demand success; return what was told beside the results."""
    return call(folder, line, **options).ok().stderr


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
