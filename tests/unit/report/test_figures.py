"""Pictures, and the filters that they show."""

import re
from dataclasses import replace
from io import BytesIO
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from mpilayer.report import figures
from mpilayer.train.sparse.firing import filters


@pytest.mark.parametrize(
    ("n_visible", "shape"), [(16, (7, 4, 4)), (15, (7, 15)), (1, (7, 1, 1))]
)
def test_filters_have_norm_1(n_visible, shape):
    weights = np.random.default_rng(0).standard_normal((n_visible, 7))
    found = filters(weights)
    assert (found.shape, found.dtype) == (shape, np.float32)
    expected = (weights / np.linalg.norm(weights, axis=0)).T
    np.testing.assert_allclose(found.reshape(7, -1), expected, rtol=1e-6)
    assert not filters(np.zeros((16, 2))).any()  # of a unit without weights


LINE = figures.Line("a $x$ < b", (1, 2, 3), (1.0, np.nan, -2.0), 0)
BARE = replace(LINE, bare=True)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("lines", [(), (LINE,), (LINE, BARE) * 5])
def test_a_chart_is_svg_that_follows_the_page(drawing, lines, log):
    look = {"x_log": log, "y_log": log, "levels": {"PCA": 0.5}}
    drawn = figures.Chart("name", "title", "says", lines, "x", "y", "alt < ", **look)
    (picture,) = drawn.figure().pictures
    svg = picture.content
    root = ET.fromstring(svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", "alt < ")
    assert "var(--ink,#1f2328)" in svg
    assert not re.search(r'(href|src)="(?!#)', svg)
    assert drawn.figure().pictures == [picture]
    assert ("a $x$ &lt; b" in svg) == bool(lines)


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


def test_tiles_are_grey_and_show_every_image(drawing):
    from PIL import Image

    images = np.zeros((3, 4, 4))
    images[1] = 1
    corners = ((1, 1), (1, 6), (6, 1))
    cases = (images, False, (0, 255, 0)), (-images, True, (128, 0))
    for shown, signed, tones in cases:
        made = figures.tiles(shown, "", signed=signed).content
        sheet = np.asarray(Image.open(BytesIO(made)))
        assert sheet.shape == (11, 11)
        for (y, x), tone in zip(corners, tones, strict=False):
            assert (sheet[y : y + 4, x : x + 4] == tone).all()
