"""The report as users get it: written by the command, opened in a real browser."""

import json
import os
import re
import shutil
import signal
from html.parser import HTMLParser
from importlib.util import find_spec
from xml.etree import ElementTree as ET

import pytest

from mpilayer import hdf5
from mpilayer.runs.directory import RunDirectory
from mpilayer.store import checkpoint
from tests.e2e.conftest import write_pixels
from tests.support import launch
from tests.support.browser import browser

pytestmark = pytest.mark.skipif(
    find_spec("matplotlib") is None, reason="needs mpilayer[plot]"
)
EVIL = "<img src=x onerror=alert(1)>"
SPARSE = ("--hidden", 5, "--evaluations", 6, "--output", "linear")


class Page(HTMLParser):
    """What a page names, and what it would load."""

    def __init__(self, path):
        super().__init__()
        self.names, self.loads, self.links, self.tags = [], [], [], []
        self.without_alt = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.names += [found["id"]] if "id" in found else []
        self.links += [v for k, v in attributes if k.endswith("href")]
        self.loads += [v for k, v in attributes if k in ("src", "srcset", "data")]
        self.loads += re.findall(r"url\(([^)]*)\)", found.get("style") or "")
        if tag == "img" and not found.get("alt"):
            self.without_alt.append(found)
        if tag == "svg" and not found.get("aria-label"):
            self.without_alt.append(found)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Give runs of every kind, finished and broken off."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_pixels(folder / "data.h5", n_columns=784)
    layers = ("--layers", "14,10,2", "--epochs", 3, "--minibatch", 50)
    for name, more in {"deep": (), "greedy": ("--schedule", "greedy")}.items():
        launch.run("pretrain", data, "--run", folder / name, *layers, *more).ok()
    launch.run("finetune", folder / "deep", "--epochs", 2).ok()
    for task in ("classify", "regress"):
        launch.run("finetune", folder / "deep", "--epochs", 2, "--task", task).ok()
    launch.run("sparse", data, "--run", folder / "sparse", *SPARSE).ok()
    launch.run("compare", data, "--run", folder / "compare", *SPARSE).ok()
    broken = shutil.copytree(folder / "greedy", folder / f"broken {EVIL[:4]}")
    for name in ("summary.json", "complete", "checkpoints/layer-3.h5"):
        (broken / name).unlink()
    return {path.name: path for path in folder.iterdir() if path.is_dir()}


@pytest.fixture(scope="module")
def chromium():
    """Give a page in a browser."""
    with browser() as page:
        yield page


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    """Give a report on all runs, and the folder of its figures."""
    folder = tmp_path_factory.mktemp("report")
    out, figures = folder / "all.html", folder / "figures"
    options = ("-o", out, "--figures", figures)
    result = launch.run("report", *runs.values(), *options).ok()
    assert result.stdout.startswith(f"wrote {out} (")
    assert "Traceback" not in result.stderr
    return out, figures


def test_everything_is_in_the_page_and_nothing_is_loaded(report):
    out, _ = report
    page = Page(out)
    assert all(v.startswith(("data:image/png;base64,", "#")) for v in page.loads)
    assert all(v.startswith("#") for v in page.links)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    text = out.read_text()
    assert "@import" not in text
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<)]*", text)) <= namespaces


def test_large_runs_make_a_small_page(tmp_path):
    """As of large layers, 64 ranks with a layer each, thousands of evaluations."""
    data = write_pixels(tmp_path / "data.h5", 784, 60)
    for name, layers, epochs in (
        ("deep", "1000,300,30", 3),
        ("wide", ",".join(["5"] * 64), 20),
    ):
        options = ["--run", tmp_path / name, "--layers", layers, "--epochs", epochs]
        launch.run("pretrain", data, *options, "--minibatch", 60).ok()
    launch.run("finetune", tmp_path / "deep", "--epochs", 2, "--minibatch", 60).ok()
    for path in (tmp_path / "wide" / "metrics").glob("layer-*"):
        rank = f'"rank": {int(path.stem.partition("-")[2]) - 1}'
        path.write_text(path.read_text().replace('"rank": 0', rank))
    names, small = ["deep", "wide"], write_pixels(tmp_path / "small.h5", 16, 60)
    options = ["--hidden", 50, "--evaluations", 5000]
    launch.run("sparse", small, "--run", tmp_path / "sparse-1", *options).ok()
    for ranks in (8, 64):
        names.append(f"sparse-{ranks}")
        shutil.copytree(tmp_path / "sparse-1", tmp_path / names[-1])
        RunDirectory(tmp_path / names[-1]).write_summary({"ranks": ranks})
    result = launch.run("report", "sparse-1", *names, cwd=tmp_path).ok()
    assert "note:" not in result.stderr
    out = tmp_path / "report.html"
    assert out.stat().st_size < 5e6
    drawn = {"spacetime-deep", "spacetime-wide", "zoom-wide", "speed-up"}
    drawn |= {"cost-evaluation", "cost-seconds", "codes-deep", "filters-deep"}
    assert drawn <= set(Page(out).names)


def test_all_figures_are_there_and_links_arrive(report):
    page = Page(report[0])
    assert len(page.names) == len(set(page.names))
    assert {link[1:] for link in page.links} <= set(page.names)
    assert page.without_alt == []
    assert set(page.names) >= {
        *("spacetime-deep", "zoom-deep", "spacetime-greedy", "codes-deep"),
        *("filters-deep", "filters-sparse", "firing-sparse", "cost-evaluation"),
        *("cost-seconds", "finetuning", "stack-error", "reconstructions-1"),
        *("classify-error", "classify-loss", "regress-error", "regress-loss"),
        *("firing-compare-exact", "gap-compare", "environment", "overview"),
        "spacetime-broken-img",
    }
    text = report[0].read_text()
    for number in ("8.00", "8.19", "8.39", "8.57", "11,683", "6,551", "1.783"):
        assert number in text  # the paper's, beside


def test_figures_are_files_too(report):
    out, folder = report
    files = sorted(folder.iterdir())
    assert {"spacetime-deep.svg", "filters-deep.png"} <= {f.name for f in files}
    for path in files:
        if path.suffix == ".svg":
            assert ET.fromstring(path.read_text()).tag.endswith("svg")
            assert "prefers-color-scheme:dark" in path.read_text()
        else:
            assert path.read_bytes().startswith(b"\x89PNG")
    assert len(files) == len(re.findall(r"<svg |<img ", out.read_text()))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_in_a_browser(chromium, report, width, dark):
    page = chromium
    page.show(report[0], width, dark)
    assert page.complaints() == []
    others = [a for a in page.requests() if not a.startswith("data:")]
    assert others == [report[0].as_uri()]
    root = "document.documentElement"
    assert page.value(f"{root}.scrollWidth") <= width
    assert page.value(f"{root}.clientWidth") == width
    ground = page.value("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    broken = "[...document.images].filter(i => !i.naturalWidth).length"
    assert page.value(broken) == 0
    empty = "[...document.querySelectorAll('figure svg')].filter"
    assert page.value(f"{empty}(s => s.getBBox().width < 50).length") == 0
    outside = (
        "[...document.querySelectorAll('figure,nav,header,p,dl')].filter("
        f"e => e.getBoundingClientRect().right > {width}).length"
    )
    assert page.value(outside) == 0
    lines = (
        "[...document.querySelectorAll('td:not(.long),dd.whole')].filter(e => {"
        "const r = document.createRange(); r.selectNodeContents(e);"
        "return new Set([...r.getClientRects()].map(b => Math.round(b.bottom))).size"
        " > 1}).map(e => e.textContent).join()"
    )
    assert page.value(lines) == ""
    # What scrolls says so, and nothing else does.
    boxes = "[...document.querySelectorAll('.scroll,.wide .pictures')]"
    scrolls = page.value(f"{boxes}.map(e => e.scrollWidth > e.clientWidth)")
    assert any(scrolls) or width > 400
    size = "parseFloat(getComputedStyle(e, '::before').fontSize)"
    assert page.value(f"{boxes}.map(e => {size} > 10)") == scrolls


def test_printed_it_is_light_and_fits(chromium, report):
    page = chromium
    page.show(report[0], 794, dark=True)
    assert page.print().startswith(b"%PDF")
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    page.ask("Emulation.setEmulatedMedia", media="print", features=[dark])
    ground = page.value("getComputedStyle(document.body).backgroundColor")
    page.ask("Emulation.setEmulatedMedia", media="")
    assert ground == "rgb(255, 255, 255)"
    wide = "[...document.querySelectorAll('figure svg')].filter"
    assert page.value(f"{wide}(s => s.clientWidth > 794).length") == 0


@pytest.mark.parametrize(
    ("kinds", "key", "value"),
    [
        ("h2,h3,summary,.facts", "breakAfter", "avoid"),
        (".table,figure", "breakInside", "avoid"),
        (".scroll,.wide .pictures", "overflowX", "visible"),
    ],
)
def test_printed_nothing_is_parted_or_cut(chromium, report, kinds, key, value):
    """A heading from what it heads, a caption from its table, a table from its end."""
    page = chromium
    page.show(report[0], 794)
    page.ask("Emulation.setEmulatedMedia", media="print")
    styles = f"[...document.querySelectorAll('{kinds}')].map(e => getComputedStyle(e)"
    found = page.value(f"{styles}.{key})")
    page.ask("Emulation.setEmulatedMedia", media="")
    assert len(found) > 5
    assert set(found) == {value}


def test_a_crowded_run_says_so(runs, tmp_path):
    data = runs["deep"].parent / "data.h5"
    options = ("--layers", "14,2", "--epochs", 1, "--minibatch", 50)
    threads = ("--threads", (os.cpu_count() or 1) + 1)
    launch.run("pretrain", data, "--run", tmp_path / "run", *options, *threads).ok()
    for run, crowded in ((tmp_path / "run", True), (runs["deep"], False)):
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["crowded"], summary["simulated_seconds"] > 0) == (crowded, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{no}",), ("must be the directory of a run",)),
        (("{sparse}", "--data", "{other}"), ("--data must be the data set of a run",)),
        (("{sparse}", "--figures", "{sparse}"), ("--figures must name a new",)),
        ((), ("required", "DIR")),
    ],
)
def test_bad_input(runs, tmp_path, arguments, words):
    other = write_pixels(runs["deep"].parent / "other.h5", n_columns=9)
    paths = {"sparse": runs["sparse"], "no": tmp_path / "no", "other": other}
    given = [text.format(**paths) for text in arguments]
    launch.assert_user_error(launch.run("report", *given, cwd=tmp_path), *words)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib(runs, tmp_path):
    change = "import importlib.util as u; f = u.find_spec\n" + (
        "u.find_spec = lambda n, *a: None if n == 'matplotlib' else f(n, *a)"
    )
    program = launch.driver(change)
    out = tmp_path / "r.html"
    result = launch.run("report", runs["sparse"], "-o", out, program=program)
    launch.assert_user_error(result, "pip install 'mpilayer[plot]'")
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "metrics", "drawn", "torn"),
    [
        (
            (
                *("pretrain", "--layers", "14,10,2"),
                *("--epochs", 9999, "--checkpoint-every", 5),
            ),
            ("layer-3", "layer-1"),
            {"spacetime-run", "zoom-run", "filters-run"},
            '{"layer": 1, "epo',
        ),
        (
            ("sparse", "--hidden", 5, "--output", "linear", "--evaluations", 10**6),
            ("sparse", "sparse"),
            {"cost-evaluation", "cost-seconds"},
            '{"evaluation": 99999, "co',
        ),
    ],
)
def test_a_run_killed_at_work(runs, tmp_path, options, metrics, drawn, torn):
    """Also its metrics may end in the middle of a line. Nothing here needs MPI."""
    command, *more = options
    data = runs["deep"].parent / "data.h5"
    with launch.started(command, data, "--run", "run", *more, cwd=tmp_path) as job:
        awaited, other = (tmp_path / "run/metrics" / f"{n}.jsonl" for n in metrics)
        job.wait_for(awaited, lines=20)
        job.signal(signal.SIGKILL, group=True)
    with other.open("a") as file:
        file.write(torn)
    program = launch.driver("sys.modules['mpi4py'] = None")
    arguments = ("report", "run", "-o", "r.html")
    result = launch.run(*arguments, cwd=tmp_path, program=program).ok()
    assert "Traceback" not in result.stderr
    assert drawn <= set(Page(tmp_path / "r.html").names)
    text = (tmp_path / "r.html").read_text()
    assert "interrupted: " in text
    assert "mpilayer resume run" in text
    shown = launch.run("watch", "run", "--once", cwd=tmp_path).ok()
    assert "interrupted; go on with 'mpilayer resume run'" in shown.stdout
    assert ("99999" in shown.stdout, shown.stderr) == (False, "")
    refused = launch.run("export", "run", "-o", "m.npz", cwd=tmp_path)
    launch.assert_user_error(refused, "mpilayer resume run")


def test_a_run_of_a_newer_mpilayer(runs, tmp_path):
    run = shutil.copytree(runs["deep"], tmp_path / "run")
    config = (run / "config.toml").read_text()
    newer = re.sub(r'(mpilayer = )".*"', r'\1"99.0"', config)
    newer = re.sub(r"(\[(pretrain|regress)\]\n)", r'\1warp = "9"\n', newer)
    (run / "config.toml").write_text(newer)
    result = launch.run("report", "run", "-o", "r.html", cwd=tmp_path).ok()
    words = ("found unknown key 'warp'", "written by mpilayer 99.0")
    assert all(word in result.stderr for word in words)
    assert "spacetime-run" in Page(tmp_path / "r.html").names
    for command in (["watch", "run", "--once"], ["export", "run", "-o", "m.npz"]):
        launch.assert_user_error(launch.run(*command, cwd=tmp_path), *words)


def test_checkpoints_of_a_newer_format(runs, tmp_path):
    run = shutil.copytree(runs["sparse"], tmp_path / "run")
    path = run / "checkpoints" / "sparse.h5"
    path.unlink()
    with hdf5.create(path, kind=checkpoint.KIND, version=99):
        pass
    result = launch.run("report", "run", "-o", "r.html", cwd=tmp_path).ok()
    assert "found 99" in result.stderr
    assert "cost-evaluation" in Page(tmp_path / "r.html").names
    refused = launch.run("export", "run", "-o", "m.npz", cwd=tmp_path)
    launch.assert_user_error(refused, "found 99", "a newer one")
