"""The report as users get it: written by the command, opened in a real browser."""

import json
import os
import re
import shutil
import signal
from html.parser import HTMLParser
from importlib.util import find_spec
from itertools import product
from xml.etree import ElementTree as ET

import pytest

from tests.support import launch
from tests.support.browser import browser
from tests.support.command import call, refuse, said
from tests.support.small import read_summary, records, write_pixels

pytestmark = pytest.mark.skipif(
    find_spec("matplotlib") is None, reason="needs mpilayer[plot]"
)
EVIL = "<img src=x onerror=alert(1)>"
SPARSE = "--hidden 5 --evaluations 6 --output linear"
LAYERS = "--layers 14,10,2 --epochs 3 --minibatch 50"


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
        told = {"img": "alt", "svg": "aria-label"}.get(tag)
        if told and not found.get(told):
            self.without_alt.append(found)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Give a folder with runs of every kind, finished and broken off."""
    folder = tmp_path_factory.mktemp("runs")
    write_pixels(folder / "data.h5", n_columns=784)
    for line in (
        f"pretrain data.h5 --run deep {LAYERS}",
        f"pretrain data.h5 --run greedy {LAYERS} --schedule greedy",
        "finetune deep --epochs 2",
        "finetune deep --epochs 2 --task classify",
        "finetune deep --epochs 2 --task regress",
        f"sparse data.h5 --run sparse {SPARSE}",
        f"compare data.h5 --run compare {SPARSE}",
    ):
        said(folder, line)
    broken = shutil.copytree(folder / "greedy", folder / f"broken {EVIL[:4]}")
    for name in ("summary.json", "complete", "checkpoints/layer-3.h5"):
        (broken / name).unlink()
    return folder


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
    paths = [path for path in runs.iterdir() if path.is_dir()]
    result = launch.run("report", *paths, "-o", out, "--figures", figures).ok()
    assert result.stdout.startswith(f"wrote {out} (")
    assert "Traceback" not in result.stderr
    return out, figures


@pytest.fixture
def copied(runs, tmp_path):
    """Give a function that copies a run into the test's folder."""
    return lambda name: shutil.copytree(runs / name, tmp_path / "run")


def drawn(folder, name="report.html"):
    """Return the names of all that a page shows."""
    return set(Page(folder / name).names)


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
    """As of 64 ranks with a layer each, thousands of evaluations."""
    write_pixels(tmp_path / "data.h5", 784, 60)
    write_pixels(tmp_path / "small.h5", 16, 60)
    wide, few = ",".join(["5"] * 64), "--minibatch 60"
    said(tmp_path, f"pretrain data.h5 --run wide --layers {wide} --epochs 4 {few}")
    said(tmp_path, "sparse small.h5 --run sparse --hidden 50 --evaluations 5000")
    for path in (tmp_path / "wide" / "metrics").glob("layer-*"):
        lines = records(tmp_path / "wide", path.stem)
        later = [  # as of 20 epochs
            {**line, "epoch": line["epoch"] + 4 * k}
            | {"used": line["used"] + 4 * k, "started": line["started"] + 40 * k}
            for k, line in product(range(5), lines)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in later))
    result = call(tmp_path, "report sparse wide").ok()
    assert "note:" not in result.stderr
    assert (tmp_path / "report.html").stat().st_size < 4e6
    expected = {"spacetime-wide", "zoom-wide", "cost-evaluation", "cost-seconds"}
    assert expected <= drawn(tmp_path)


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


ALL = "[...document.querySelectorAll('{}')]"
BOXES = ALL.format(".scroll,.wide .pictures")
GROUND = "getComputedStyle(document.body).backgroundColor"
SMALL = ALL.format("figure svg") + ".filter(s => s.getBBox().width < 50).length"
OUTSIDE = ALL.format("figure,nav,header,p,dl") + (
    ".filter(e => e.getBoundingClientRect().right > {}).length"
)
PARTED = ALL.format("td:not(.long),dd.whole") + (
    ".filter(e => {const r = document.createRange(); r.selectNodeContents(e);"
    "return new Set([...r.getClientRects()].map(b => Math.round(b.bottom))).size"
    " > 1}).map(e => e.textContent).join()"
)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_in_a_browser(chromium, report, width, dark):
    page = chromium
    page.show(report[0], width, dark)
    assert page.complaints() == []
    others = [a for a in page.requests() if not a.startswith("data:")]
    assert others == [report[0].as_uri()]
    for expression, expected in {
        "document.documentElement.clientWidth": width,
        "document.documentElement.scrollWidth": width,
        GROUND: "rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)",
        "[...document.images].filter(i => !i.naturalWidth).length": 0,
        SMALL: 0,
        OUTSIDE.format(width): 0,
        PARTED: "",
    }.items():
        assert page.value(expression) == expected, expression
    # What scrolls says so, and nothing else does.
    scrolls = page.value(f"{BOXES}.map(e => e.scrollWidth > e.clientWidth)")
    assert any(scrolls) or width > 400
    size = "parseFloat(getComputedStyle(e, '::before').fontSize)"
    assert page.value(f"{BOXES}.map(e => {size} > 10)") == scrolls


def test_printed_it_is_light_and_nothing_is_parted_or_cut(chromium, report):
    """A heading from what it heads, a caption from its table, a table from its end."""
    page = chromium
    page.show(report[0], 794, dark=True)
    assert page.print().startswith(b"%PDF")
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    page.ask("Emulation.setEmulatedMedia", media="print", features=[dark])
    wide = ALL.format("figure svg") + ".filter(s => s.clientWidth > 794).length"
    found = {expression: page.value(expression) for expression in (GROUND, wide)}
    styles = [
        (value, page.value(f"{ALL.format(kinds)}.map(e => getComputedStyle(e).{key})"))
        for kinds, key, value in (
            ("h2,h3,summary,.facts", "breakAfter", "avoid"),
            (".table,figure", "breakInside", "avoid"),
            (".scroll,.wide .pictures", "overflowX", "visible"),
        )
    ]
    page.ask("Emulation.setEmulatedMedia", media="")
    assert found == {GROUND: "rgb(255, 255, 255)", wide: 0}
    assert all(len(s) > 5 and set(s) == {value} for value, s in styles), styles


def test_a_crowded_run_says_so(runs):
    threads = (os.cpu_count() or 1) + 1
    more = f"--threads {threads} --layers 14,2 --epochs 1 --minibatch 50"
    said(runs, f"pretrain data.h5 --run crowded {more}")
    for name, crowded in (("crowded", True), ("deep", False)):
        summary = read_summary(runs / name)
        assert (summary["crowded"], summary["simulated_seconds"] > 0) == (crowded, True)


def test_bad_input(runs, monkeypatch):
    refuse(runs, "report no", "must be the directory of a run")
    monkeypatch.setattr("mpilayer.report.figures.find_spec", lambda _: None)
    refuse(runs, "report sparse", "pip install 'mpilayer[plot]'")


@pytest.mark.parametrize(
    ("line", "metrics", "expected", "torn"),
    [
        ("pretrain --layers 14,10,2 --epochs 9999 --checkpoint-every 5",
         ("layer-3", "layer-1"), {"spacetime-run", "zoom-run", "filters-run"},
         '{"layer": 1, "epo'),
        ("sparse --hidden 5 --output linear --evaluations 1000000",
         ("sparse", "sparse"), {"cost-evaluation", "cost-seconds"},
         '{"evaluation": 99999, "co'),
    ],
)  # fmt: skip
def test_a_run_killed_at_work(runs, tmp_path, line, metrics, expected, torn):
    """Also its metrics may end in the middle of a line. Nothing here needs MPI."""
    words = [*line.split(), runs / "data.h5", "--run", "run"]
    with launch.started(*words, cwd=tmp_path) as job:
        awaited, other = (tmp_path / "run/metrics" / f"{n}.jsonl" for n in metrics)
        job.wait_for(awaited, lines=20)
        job.signal(signal.SIGKILL, group=True)
    with other.open("a") as file:
        file.write(torn)
    program = launch.driver("sys.modules['mpi4py'] = None")
    result = call(tmp_path, "report run", program=program).ok()
    assert "Traceback" not in result.stderr
    assert expected <= drawn(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "interrupted: " in text
    assert "mpilayer resume run" in text
    shown = call(tmp_path, "watch run --once").ok()
    assert "interrupted; go on with 'mpilayer resume run'" in shown.stdout
    assert ("99999" in shown.stdout, shown.stderr) == (False, "")
    refuse(tmp_path, "export run -o m.npz", "mpilayer resume run")


def test_a_run_of_a_newer_mpilayer(copied, tmp_path):
    path = copied("deep") / "config.toml"
    newer = re.sub(r'(mpilayer = )".*"', r'\1"99.0"', path.read_text())
    path.write_text(re.sub(r"(\[(pretrain|regress)\]\n)", r'\1warp = "9"\n', newer))
    result = call(tmp_path, "report run").ok()
    words = ("found unknown key 'warp'", "written by mpilayer 99.0")
    assert all(word in result.stderr for word in words)
    assert "spacetime-run" in drawn(tmp_path)
    for line in ("watch run --once", "export run -o m.npz"):
        refuse(tmp_path, line, *words)


# --- where matplotlib is set up for something else, or broken

FEW = "--hidden 9 --evaluations 3"


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Give a folder with patches, and a run whose picture nothing disturbed."""
    folder = tmp_path_factory.mktemp("figures")
    write_pixels(folder / "patches.h5", n_columns=16)
    said(folder, f"sparse patches.h5 --run plain {FEW}", apart=True)
    said(folder, "report plain -o plain.html", apart=True)
    return folder


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.x", "nonsense"])
def test_the_settings_of_others(patches, tmp_path, backend):
    settings = tmp_path / "matplotlibrc"
    settings.write_text("text.usetex: True\nbackend: qtagg\nfigure.dpi: 7\n")
    variables = {"MPLBACKEND": backend, "MATPLOTLIBRC": str(settings)}
    run, page = tmp_path / "run", tmp_path / "page.html"
    line = f"sparse patches.h5 --run {run} {FEW}"
    text = said(patches, line, variables=variables)
    assert f"Filters: {run / 'filters.png'}" in text
    said(patches, f"report plain -o {page}", variables=variables)
    picture = (patches / "plain" / "filters.png").read_bytes()
    assert (run / "filters.png").read_bytes() == picture
    paths = (patches / "plain.html").read_text().count("<path")
    assert page.read_text().count("<path") == paths > 0


def test_a_picture_that_fails_does_not_fail_the_run(patches, tmp_path):
    broken, run = tmp_path / "matplotlibrc", tmp_path / "run"
    broken.write_bytes(b"\xff\xfe")
    variables = {"MATPLOTLIBRC": str(broken)}
    line = f"sparse patches.h5 --run {run} {FEW}"
    made = call(patches, line, variables=variables).ok()
    assert "matplotlib must be able to draw" in made.stderr
    assert "there is no picture of the filters" in made.stderr
    assert f"Filters: {run / 'filters.npy'}" in made.stdout
    assert (run / "complete").read_text().split() == ["sparse"]
    words = "matplotlib must be able to draw"
    refuse(tmp_path, "report run -o page.html", words, variables=variables)
