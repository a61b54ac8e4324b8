"""The space-time diagram: true to the records, readable when there are many."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from mpilayer.report import spacetime
from mpilayer.report.run import Epoch
from mpilayer.report.spacetime import Lane, diagram, window_of
from mpilayer.train.record import KINDS

LEFT, RIGHT = 150.0, 966.0


def epoch(number, started, used=0, error=1.0, **seconds):
    """Return an epoch of one second, if nothing else is said."""
    kinds = {**dict.fromkeys(KINDS, 0.0), "training": 1.0, **seconds}
    return Epoch(number, used, 0, started, kinds, error, 2 * error)


def lanes():
    """Return two layers, the upper one an epoch later."""
    first = [epoch(i, i - 1.0, error=1 / i) for i in (1, 2, 3)]
    second = [epoch(i, float(i), used=i, waiting=0.0) for i in (1, 2, 3)]
    second[0] = epoch(1, 1.0, used=1, waiting=1.0)
    return [Lane("layer 1", "4-3", first), Lane("layer 2", "3-2", second)]


def bars(svg):
    """Return kind, left and right of the bars, by what they say when pointed at."""
    told = r'<path d="M([\d.]+) [\d.]+h([\d.]+)[^"]*" style="[^"]*"><title>([^<]*)'
    found = []
    for left, width, tip in re.findall(told, svg):
        if kind := re.match(r"epoch \d+, output \d+: ([^,]*)", tip):
            found.append((kind[1], float(left), float(left) + float(width)))
    return found


def test_bars_lie_where_the_seconds_are():
    found = bars(diagram(lanes()))
    scale = (RIGHT - LEFT) / 4
    training = [(a, b) for kind, a, b in found if kind == "training"]
    expected = [(i, i + 1) for i in (0, 1, 2, 1, 2, 3)]
    assert training == [
        (pytest.approx(LEFT + a * scale), pytest.approx(LEFT + b * scale))
        for a, b in expected
    ]
    waiting = [(a, b) for kind, a, b in found if kind == "waiting"]
    assert waiting == [(LEFT, pytest.approx(LEFT + scale))]


def test_every_output_goes_to_the_epoch_that_first_used_it():
    told = re.findall(r"<title>(epoch \d of layer 2 used[^<]*)", diagram(lanes()))
    assert told == [
        f"epoch {i} of layer 2 used output {i} of layer 1" for i in (1, 2, 3)
    ]


def test_arrows_go_up_from_layer_to_layer():
    svg = diagram(lanes())
    heights = {layer: y_of(svg, f"layer {layer}") for layer in (1, 2)}
    assert heights[2] < heights[1]
    arrows = re.findall(r'd="M[\d.]+ ([\d.]+)L[\d.]+ ([\d.]+)"><title>epoch', svg)
    assert len(arrows) == 3
    assert all(
        heights[2] < float(to) < float(from_) < heights[1] for from_, to in arrows
    )


def y_of(svg, words):
    """Return how low some words stand."""
    return float(re.search(rf'<text x="[^"]*" y="([^"]*)"[^>]*>{words}</text>', svg)[1])


def texts(svg):
    """Return left, right, height and words of all texts, as wide as they may be."""
    found = re.findall(r'<text x="([^"]*)" y="([^"]*)" text-anchor="(\w+)"[^>]*>', svg)
    words = re.findall(r"<text[^>]*>([^<]*)<", svg)
    parts = {"start": 0.0, "middle": 0.5, "end": 1.0}
    for (x, y, anchor), said in zip(found, words, strict=True):
        left = float(x) - parts[anchor] * 6.5 * len(said)
        yield left, left + 6.5 * len(said), float(y), said


def test_nothing_crosses_the_numbers_of_errors():
    """Arrows and lines lie between the edges, numbers outside."""
    numbers = [t for t in texts(diagram(lanes())) if re.fullmatch(r"\d\.\d\d", t[3])]
    assert len(numbers) == 8
    assert all(right < LEFT or left > RIGHT for left, right, _, _ in numbers)
    ends = sorted(words for left, _, _, words in numbers if left > RIGHT)
    assert ends == ["0.33", "0.67", "1.00", "2.00"]


@pytest.mark.parametrize("n", [8, 56, 1000])
def test_short_epochs_have_numbers_that_do_not_overlap(n):
    some = [
        epoch(i, 10.0 * i, training=0.01, waiting=9.0, error=1 / i)
        for i in range(1, n + 1)
    ]
    svg = diagram([Lane("layer 1", "", some)])
    height = y_of(svg, "layer 1")
    shown = [t for t in texts(svg) if height < t[2] < height + 10 and t[3].isdigit()]
    assert min(n, 8) <= len(shown) <= 80
    assert all(a[1] <= b[0] + 1 for a, b in pairwise(shown))
    steps = {int(b[3]) - int(a[3]) for a, b in pairwise(shown)}
    assert len(steps) == 1
    assert {str(step)[0] for step in steps} <= {"1", "2", "5"}


def test_sending_can_be_seen_however_short_it_is():
    some = [epoch(i, i - 1.0, training=0.98, sending=0.005) for i in range(1, 11)]
    found = bars(diagram([Lane("layer 1", "", some)]))
    widths = [right - left for kind, left, right in found if kind == "sending"]
    assert len(widths) == 10
    assert min(widths) >= 2


def test_what_is_too_short_to_be_seen_is_not_in_the_legend():
    some = [epoch(i, i - 1.0, training=0.99, sending=1e-6) for i in (1, 2)]
    svg = diagram([Lane("layer 1", "", some)])
    assert ">training</text>" in svg
    assert ">sending</text>" not in svg


def test_an_output_used_twice_has_one_arrow():
    below, _ = lanes()
    again = Lane("layer 2", "", [epoch(i, float(i), used=1) for i in (1, 2, 3)])
    assert diagram([below, again]).count("used output") == 1
    unknown = Lane("layer 2", "", [epoch(1, 1.0, used=9)])
    assert "used output" not in diagram([below, unknown])


def test_all_kinds_are_in_the_legend_and_drawn():
    times = dict.fromkeys(KINDS, 1.0)
    svg = diagram([Lane("layer 1", "", [epoch(1, 1.0, **times)])])
    assert {kind for kind, _, _ in bars(svg)} == set(KINDS.values())
    for words in (*KINDS.values(), "training error", "validation error"):
        assert f">{words}</text>" in svg


def test_a_window_shows_its_epochs_and_no_others():
    below, above = lanes()
    window = window_of(above, 1)
    assert window[0] < 2 < 3 < window[1]
    found = bars(diagram([below, above], window))
    assert all(LEFT <= a <= b <= RIGHT + 0.01 for _, a, b in found)
    assert "epoch 2 on output 2" in diagram([above], window)


def test_what_the_rank_did_otherwise_is_left_blank():
    first = epoch(1, 0.0, training=1.0, monitor=0.0001)
    then = epoch(2, 99.0, waiting=0.0001)
    found = bars(diagram([Lane("layer 1", "", [first, then])]))
    scale = (RIGHT - LEFT) / 100
    assert all(b - a <= 1.1 * scale for _, a, b in found)


def test_many_epochs_stay_few_bars():
    many = [epoch(i, 0.01 * i, training=0.01, error=1 / i) for i in range(1, 5001)]
    svg = diagram([Lane("layer 1", "", many)])
    assert len(bars(svg)) < 1200
    assert max(b for _, _, b in bars(svg)) == pytest.approx(RIGHT, abs=1)


def test_many_layers_share_elements_and_cover_the_same(monkeypatch):
    each = diagram(lanes())
    monkeypatch.setattr(spacetime, "_MOST_TIPS", 3)
    joined = diagram(lanes())
    assert bars(joined) == []
    assert joined.count("<title>") == 4  # training twice, waiting, outputs
    path = re.search(r'<path d="([^"]*)"[^>]*><title>training', joined)
    lefts = [float(x) for x in re.findall(r"M([\d.]+)", path[1])]
    first = [left for kind, left, _ in bars(each) if kind == "training"][:3]
    assert lefts == pytest.approx(first)
    heads = re.compile(r"M[\d.]+ [\d.]+l-3.5 7h7z")
    assert heads.findall(joined) == heads.findall(each)
    ET.fromstring(joined)


def test_validation_errors_are_circles_and_training_errors_a_line():
    """Figures 3 and 4 of the paper."""
    some = [epoch(i, i - 1.0, error=1 / i) for i in (1, 2, 3)]
    svg = diagram([Lane("layer 1", "", some)])
    (line,) = re.findall(r'<polyline points="([^"]*)"', svg)
    paths = re.findall(r'<path d="([^"]*)" style="[^"]*var\(--c4', svg)
    legend, circles = (
        [tuple(map(float, at)) for at in re.findall(r"M([\d.]+) ([\d.]+)a", path)]
        for path in paths
    )
    assert len(legend) == 3
    points = [tuple(map(float, point.split(","))) for point in line.split()]
    # Left ends of circles above where the epochs end; the error is twice as large.
    assert [x for x, _ in points] == pytest.approx([x + 2.6 for x, _ in circles])
    assert all(y < below for (_, y), (_, below) in zip(circles, points, strict=True))


def test_circles_do_not_overlap_and_the_last_is_there():
    many = [epoch(i, 0.01 * i, training=0.01, error=1 / i) for i in range(1, 5001)]
    svg = diagram([Lane("layer 1", "", many)])
    *_, path = re.findall(r'<path d="([^"]*)" style="[^"]*var\(--c4', svg)
    x = [float(left) for left in re.findall(r"M([\d.]+)", path)]
    assert len(x) > 100
    assert min(b - a for a, b in pairwise(x)) > 5
    assert x[-1] + 2.6 == pytest.approx(RIGHT, abs=0.1)


@pytest.mark.parametrize("error", [math.nan, 1.0])
def test_errors_may_be_missing_or_constant(error):
    some = [epoch(i, float(i), error=error) for i in (1, 2)]
    ET.fromstring(diagram([Lane("layer 1", "", some)]))


def test_nothing_foreign_becomes_markup():
    svg = diagram([Lane("<b>", "&", [epoch(1, 0.0)])], alt='"<')
    ET.fromstring(svg)
    assert "<b>" not in svg


def test_a_layer_that_has_not_begun_has_an_empty_row():
    below, _ = lanes()
    ET.fromstring(diagram([below, Lane("layer 2", "", [])]))
    ET.fromstring(diagram([Lane("layer 1", "", [])]))
    assert spacetime.diagram([below, Lane("layer 2", "", [])]).count(">layer 2<") == 1
