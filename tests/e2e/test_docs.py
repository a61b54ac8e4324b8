"""The documents: their commands run, their pages are those of the program, links lead.

Commands are run as they are written, but for ``SMALLER`` and ``SKIPPED``, those of one
document after those of the other, in one folder beside ``data`` and ``examples``; so
are the programs of ``PROGRAMS`` between them.
"""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.support import launch
from tests.support.command import call

DOCS = launch.ROOT / "docs"
DOCUMENTS = [
    launch.ROOT / "README.md",
    DOCS / "tutorial-deep.md",
    DOCS / "tutorial-sparse.md",
    DOCS / "data.md",
]

PROGRAMS = {"data": ("PIL", "scipy", "sklearn")}
"""Documents whose Python is run, too, and what it needs."""

SMALLER = [
    (
        r"pretrain data/mnist-sample.h5 .*",
        r"\g<0> --layers 12,9,6,4 --learning-rate 0.1 --epochs 2",
    ),
    (r"(finetune .*) --epochs \d+", r"\1 --epochs 1"),
    (r"--count \d+", "--count 2000"),
    (r"--evaluations 300 --max-time 2", "--evaluations 99999 --max-time 1"),
    (r"--evaluations (200|300)\b", "--evaluations 20"),
    (r"(sparse \w+.h5 --run runs/(sparse|exact|edges).*)", r"\1 --evaluations 20"),
    (r"(compare \w+.h5 --run runs/\S*compare.*)", r"\1 --evaluations 20"),
    (
        r"(run examples/santara2016-small.toml)",
        r"\1 --set pretrain.layers=9,8,6,4 pretrain.epochs=2 finetune.epochs=1",
    ),
    (
        r"(run examples/lahiri2010-small.toml)",
        r"\1 --set data.count=2000 sparse.evaluations=20 compare.evaluations=20",
    ),
    (r"(mpilayer resume runs/late)", r"\1 --max-time 1"),
    (r"(pretrain \w+.h5 --run runs/(iris|diabetes|pictures).*)", r"\1 --epochs 2"),
    (r"(finetune runs/(iris|diabetes) .*)", r"\1 --epochs 2"),
]
"""What is written, and what is run in its place."""

SKIPPED = {
    "mpilayer data fetch": "needs the network",
    "mpilayer data prepare mnist": "needs the full MNIST",
    "mpilayer data info mnist.h5": "needs the full MNIST",
    "pretrain mnist.h5": "needs the full MNIST",
    " runs/full": "needs the run of the full MNIST",
    "data.path=mnist.h5": "needs the full MNIST",
    "data.source=IMAGES": "needs the reader's images",
}
if find_spec("matplotlib") is None:
    SKIPPED["mpilayer report"] = "needs matplotlib"
"""Parts of commands that are not run, and why."""

CODES = {"mpilayer doctor": {0, 1}, "runs/late": {0, 75}}
"""Exit codes other than 0 that are as they should be."""

_COMMAND = re.compile(r"(mpiexec -n \d+ )?mpilayer ")
_CODE = re.compile(r"^```.*?^```|`[^`]+`", flags=re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks(text):
    """Return the languages and contents of the code blocks of a document."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text, programs=False):
    """Return the commands that a document tells the reader to type.

    With ``programs`` the Python among them, too: texts of several lines.
    """
    found = []
    for language, block in blocks(text):
        if language == "python":
            found += [block] * programs
            continue
        prompt = "$ " if "$ " in [line[:2] for line in block.splitlines()] else ""
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            command = line.removeprefix(prompt)
            if line.startswith(prompt) and _COMMAND.match(command):
                found.append(re.sub(r"\s+# .*", "", command))
    return found


def smaller(command):
    """Return a command that takes a moment only."""
    for pattern, instead in SMALLER:
        # Of options that are given twice the last one counts.
        command = re.sub(pattern, instead, command)
    return command


def carry_out(command, folder):
    """Run a command, or a program, of a document; return its result."""
    if "\n" in command:
        return launch.run(program=("-c", command), cwd=folder)
    return call(folder, command)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder like a checkout, in which all documents are worked through."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("data", "examples"):
        (folder / name).symlink_to(launch.ROOT / name)
    (folder / "runs").mkdir()
    return folder


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_the_commands_of_a_document(document, folder):
    for module in PROGRAMS.get(document.stem, ()):
        pytest.importorskip(module)
    found = commands(document.read_text(), document.stem in PROGRAMS)
    assert len(found) > 5
    for command in found:
        if any(part in command for part in SKIPPED):
            continue
        result = carry_out(smaller(command), folder)
        codes = [allowed for part, allowed in CODES.items() if part in command]
        assert result.code in (codes[0] if codes else {0}), f"{command}\n{result}"
        assert "Traceback" not in result.stderr, f"{command}\n{result}"


@pytest.mark.parametrize("name", ["README.md", "docs/estimators.md"])
def test_the_python_of_a_document(name, tmp_path):
    pytest.importorskip("sklearn", reason="needs mpilayer[sklearn]")
    pytest.importorskip("mpi4py", reason="needs mpilayer[mpi]")
    np.save(tmp_path / "rows-0.npy", np.random.default_rng(0).random((200, 20)))
    text = (launch.ROOT / name).read_text()
    program = tmp_path / "program.py"
    # Shorter trainings, but all of them.
    found = "\n".join(_PYTHON.findall(text)).replace("X / 16", "X / 16; X = X[::9]")
    found = found.replace(".fit(X, y)", ".fit(X, y[::9])").replace(
        ".data /", ".data[::9] /"
    )
    program.write_text(re.sub(r"(epochs=|range\(|evaluations=)\d+", r"\g<1>2", found))
    launch.run(program=(program,), cwd=tmp_path).ok()


def test_nothing_is_made_smaller_in_vain():
    text = "\n".join(c for path in DOCUMENTS for c in commands(path.read_text()))
    assert [part for part, _ in SMALLER if not re.search(part, text)] == []


@pytest.mark.skipif(
    sys.version_info[:2] not in ((3, 11), (3, 12)),
    reason="the pages are made by Python 3.11; later argparse writes options otherwise",
)
def test_the_pages_of_commands_are_those_of_the_program(tmp_path):
    module = ("-m", "mpilayer.cli.pages")
    launch.run(tmp_path / "made", program=module).ok()
    made = {path.name: path.read_text() for path in (tmp_path / "made").iterdir()}
    there = {path.name: path.read_text() for path in (DOCS / "commands").iterdir()}
    stale = sorted(k for k in {*made, *there} if made.get(k) != there.get(k))
    assert stale == [], "make them again: python -m mpilayer.cli.pages"


def test_links_lead_somewhere():
    pages = [*DOCUMENTS[:1], *DOCS.rglob("*.md")]
    lost = [
        f"{page.name}: {link}"
        for page in pages
        for link in _LINK.findall(_CODE.sub("", page.read_text()))
        if not (page.parent / link).exists()
    ]
    assert lost == []


def test_the_index_names_every_document():
    linked = set(_LINK.findall((DOCS / "README.md").read_text()))
    there = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert there <= linked, there - linked


@pytest.mark.parametrize("name", ["tutorial-deep", "tutorial-sparse"])
def test_tutorials_are_short(name: str):
    lines = Path(DOCS / f"{name}.md").read_text().splitlines()
    assert len(lines) < 120
