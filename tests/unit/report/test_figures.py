"""Pictures, and the filters that they show."""

import re
from io import BytesIO
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from mpilayer.errors import ConfigError
from mpilayer.report import figures
from mpilayer.runs.outcome import filters


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
    assert not filters(np.zeros((16, 2))).any()  # of a unit without weights


@pytest.mark.parametrize("n_filters", [1, 2, 30])
def test_a_picture_of_filters(tmp_path, drawing, n_filters):
    assert figures.available()
    tiles = np.random.default_rng(0).standard_normal((n_filters, 4, 4))
    tiles[0] = 0
    path = tmp_path / "filters.png"
    figures.draw_filters(tiles, path, "16-30-16, cost 2.73")
    assert path.read_bytes().startswith(b"\x89PNG")


LINE = figures.Line("a $x$ < b", (1, 2, 3), (1.0, np.nan, -2.0), 0)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("lines", [(), (LINE,), tuple([LINE] * 9)])
def test_a_chart_is_svg_that_follows_the_page(drawing, lines, log):
    look = {"x_log": log, "y_log": log, "levels": {"PCA": 0.5}}
    drawn = figures.Chart("name", "title", "says", lines, "x", "y", "alt < ", **look)
    (picture,) = drawn.figure().pictures
    svg = picture.content
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "alt < "
    assert "var(--ink,#1f2328)" in svg
    assert not re.search(r'(href|src)="(?!#)', svg)
    assert drawn.figure().pictures == [picture]
    if lines:
        assert "a $x$ &lt; b" in svg


@pytest.fixture
def axes_of(drawing, monkeypatch):
    """Give what returns the axes of lines."""
    made = []
    monkeypatch.setattr(figures, "_svg", lambda figure, _: made.append(figure) or "")

    def draw(*lines, **options):
        figures.Chart("n", "t", "s", lines, "x", "y", "alt", **options).figure()
        made[0].draw_without_rendering()
        return made[0].axes[0]

    return draw


def test_numbers_of_axes_have_no_zeros_at_their_end(axes_of):
    axes = axes_of(figures.Line("a", (0, 1.5), (-2.5, 17.5)))
    for axis in (axes.xaxis, axes.yaxis):
        shown = [label.get_text() for label in axis.get_ticklabels()]
        assert "0" in shown
        assert not [text for text in shown if re.search(r"\.\d*0$|-", text)]


def test_what_lies_above_the_frame_leaves_no_room_beside_it(axes_of):
    costs = [90.0] * 24 + [3.0 - 0.01 * i for i in range(76)]
    left, right = axes_of(figures.Line("a", range(1, 101), costs), top=3.1).get_xlim()
    assert 20 < left < 25
    assert 100 < right < 105


def test_a_bare_line_is_thin_and_goes_with_its_marked_one(axes_of):
    lines = [figures.Line("a", (1, 2), (1, 2), 1, bare=bare) for bare in (False, True)]
    thick, thin = axes_of(*lines).get_lines()
    assert thin.get_linewidth() < thick.get_linewidth()
    assert thin.get_color() == thick.get_color()
    assert (thin.get_marker(), thick.get_marker()) == ("", "s")


def test_tiles_are_grey_and_show_every_image(drawing):
    from PIL import Image

    images = np.zeros((3, 4, 4))
    images[1] = 1

    def sheet_of(images, **how):
        return np.asarray(Image.open(BytesIO(figures.tiles(images, "", **how).content)))

    sheet = sheet_of(images)
    assert sheet.shape == (11, 11)
    assert (sheet[1:5, 1:5] == 0).all()
    assert (sheet[1:5, 6:10] == 255).all()
    assert (sheet[6:10, 1:5] == 0).all()
    signed = sheet_of(-images, signed=True)
    assert (signed[1:5, 1:5] == 128).all()
    assert (signed[1:5, 6:10] == 0).all()


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(figures, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'mpilayer\[plot\]'"):
        figures.check_available()
