"""Pictures, and the filters that they show."""

import re
from io import BytesIO
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from mpilayer.errors import ConfigError
from mpilayer.report import figures
from mpilayer.runs.sparse import filters


@pytest.mark.parametrize(
    ("n_visible", "shape"), [(16, (7, 4, 4)), (15, (7, 15)), (1, (7, 1, 1))]
)
def test_filters_have_norm_1(n_visible, shape):
    weights = np.random.default_rng(0).standard_normal((n_visible, 7))
    found = filters(weights)
    assert (found.shape, found.dtype) == (shape, np.float32)
    norms = np.linalg.norm(found.reshape(7, -1), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-6)
    first = weights[:, 0] / np.linalg.norm(weights[:, 0])
    np.testing.assert_allclose(found[0].ravel(), first, rtol=1e-6)


def test_a_unit_without_weights_has_an_empty_filter():
    assert not filters(np.zeros((16, 2))).any()


@pytest.mark.parametrize("n_filters", [1, 2, 30])
def test_a_picture_of_filters(tmp_path, n_filters):
    pytest.importorskip("matplotlib", reason="needs mpilayer[plot]")
    assert figures.available()
    tiles = np.random.default_rng(0).standard_normal((n_filters, 4, 4))
    tiles[0] = 0
    path = tmp_path / "filters.png"
    figures.draw_filters(tiles, path, "16-30-16, cost 2.73")
    assert path.read_bytes().startswith(b"\x89PNG")


LINE = figures.Line("a $x$ < b", (1, 2, 3), (1.0, np.nan, -2.0), 0)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("lines", [(), (LINE,), tuple([LINE] * 9)])
def test_a_chart_is_svg_that_follows_the_page(lines, log):
    pytest.importorskip("matplotlib", reason="needs mpilayer[plot]")
    drawn = figures.Chart(
        lines, "x", "y", "alt < ", x_log=log, y_log=log, levels=(("PCA", 0.5),)
    )
    svg = figures.chart(drawn)
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "alt < "
    assert "var(--ink,#1f2328)" in svg
    assert not re.search(r'(href|src)="(?!#)', svg)
    assert figures.chart(drawn) == svg
    if lines:
        assert "a $x$ &lt; b" in svg


def axes_of(drawn, monkeypatch):
    """Return the axes of a chart, and its legend if there is one."""
    pytest.importorskip("matplotlib", reason="needs mpilayer[plot]")
    made = []
    monkeypatch.setattr(figures, "_svg", lambda figure, _: made.append(figure) or "")
    figures.chart(drawn)
    made[0].draw_without_rendering()
    return made[0].axes[0], next(iter(made[0].legends), None)


def test_numbers_of_axes_have_no_zeros_at_their_end(monkeypatch):
    line = figures.Line("a", (0, 1.5), (-2.5, 17.5))
    axes, _ = axes_of(figures.Chart((line,), "x", "y", "alt"), monkeypatch)
    for axis in (axes.xaxis, axes.yaxis):
        shown = [label.get_text() for label in axis.get_ticklabels()]
        assert "0" in shown
        assert not [text for text in shown if re.search(r"\.\d*0$|-", text)]


def test_what_lies_above_the_frame_leaves_no_room_beside_it(monkeypatch):
    line = figures.Line(
        "a", range(1, 101), [90.0] * 24 + [3.0 - 0.01 * i for i in range(76)]
    )
    axes, _ = axes_of(figures.Chart((line,), "x", "y", "alt", top=3.1), monkeypatch)
    left, right = axes.get_xlim()
    assert 20 < left < 25
    assert 100 < right < 105


def test_a_bare_line_is_thin_and_goes_with_its_marked_one(monkeypatch):
    lines = [figures.Line("a", (1, 2), (1, 2), 1, bare=bare) for bare in (False, True)]
    axes, _ = axes_of(figures.Chart(tuple(lines), "x", "y", "alt"), monkeypatch)
    thick, thin = axes.get_lines()
    assert thin.get_linewidth() < thick.get_linewidth()
    assert thin.get_color() == thick.get_color()
    assert (thin.get_marker(), thick.get_marker()) == ("", "s")


@pytest.mark.parametrize(("n", "columns"), [(3, 1), (5, 2)])
def test_long_legends_have_two_columns(monkeypatch, n, columns):
    lines = tuple(figures.Line(f"run {i}", (1, 2), (1, i), i) for i in range(n))
    _, legend = axes_of(figures.Chart(lines, "x", "y", "alt"), monkeypatch)
    assert legend._ncols == columns


@pytest.mark.parametrize("labels", [None, np.array([0, 1, 10])])
def test_points_are_their_labels(labels):
    pytest.importorskip("matplotlib", reason="needs mpilayer[plot]")
    x = np.arange(3.0)
    svg = figures.scatter(x, x, labels, figures.Chart((), "x", "y", "alt"))
    assert svg.count("<use") >= 3


def test_tiles_are_grey_and_show_every_image():
    pytest.importorskip("matplotlib", reason="needs mpilayer[plot]")
    from PIL import Image

    images = np.zeros((3, 4, 4))
    images[1] = 1
    sheet = np.asarray(Image.open(BytesIO(figures.tiles(images, 2))))
    assert sheet.shape == (11, 11)
    assert (sheet[1:5, 1:5] == 0).all()
    assert (sheet[1:5, 6:10] == 255).all()
    assert (sheet[6:10, 1:5] == 0).all()
    signed = np.asarray(Image.open(BytesIO(figures.tiles(-images, 2, signed=True))))
    assert (signed[1:5, 1:5] == 128).all()
    assert (signed[1:5, 6:10] == 0).all()


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(figures, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'mpilayer\[plot\]'"):
        figures.check_available()
