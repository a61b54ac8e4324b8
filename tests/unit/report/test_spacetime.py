"""The space-time diagram: true to the records, readable when there are many."""

import math
import re
from dataclasses import replace
from hashlib import sha256
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
    errors = {"train_error": error, "validation_error": 2 * error}
    return Epoch(0, number, used, started, **kinds, **errors, rank=0)


def lane(*epochs, title="layer 1"):
    return Lane(title, "", epochs)


def lanes():
    """Return two layers, the upper one an epoch later."""
    first = [epoch(i, i - 1.0, error=1 / i) for i in (1, 2, 3)]
    second = [epoch(i, float(i), used=i, waiting=float(i == 1)) for i in (1, 2, 3)]
    return [lane(*first), lane(*second, title="layer 2")]


def bars(svg, wanted=""):
    """Return kind, left and right of the bars, by what they say when pointed at."""
    told = r'<path d="M([\d.]+) [\d.]+h([\d.]+)[^"]*" style="[^"]*"><title>([^<]*)'
    found = []
    for left, width, tip in re.findall(told, svg):
        kind = re.match(r"epoch \d+, output \d+: ([^,]*)", tip)
        if kind and wanted in kind[1]:
            found.append((kind[1], float(left), float(left) + float(width)))
    return found


def in_team(*shares, number=1, started=0.0, **seconds):
    """Return an epoch of a team from rank 4 on, and what its ranks were at work."""
    whole = epoch(number, started, **seconds)
    team = [(4 + i, work, whole.training - work) for i, work in enumerate(shares)]
    return replace(whole, team=tuple(team))


def lanes_of(svg):
    """Return what each rank did, for how many seconds of four, in order."""
    told = r'h([\d.]+)v[^"]*" style="[^"]*"><title>(rank \d+), [^:]*: ([^,]*), ([\d.]+)'
    found = {}
    for width, rank, kind, seconds in re.findall(told, svg):
        least = 2.0 if kind == "sending" else 0.0
        drawn = max(least, float(seconds) * (RIGHT - LEFT) / 4)
        assert float(width) == pytest.approx(drawn, abs=0.01)
        found.setdefault(rank, {})[kind] = float(seconds)
    return found


def y_of(svg, words):
    """Return how low some words stand."""
    return next(y for _, _, y, said in texts(svg) if said == words)


def texts(svg):
    """Return left, right, height and words of all texts, as wide as they may be."""
    found = re.findall(r'<text x="([^"]*)" y="([^"]*)" text-anchor="(\w+)"[^>]*>', svg)
    words = re.findall(r"<text[^>]*>([^<]*)<", svg)
    parts = {"start": 0.0, "middle": 0.5, "end": 1.0}
    for (x, y, anchor), said in zip(found, words, strict=True):
        left = float(x) - parts[anchor] * 6.5 * len(said)
        yield left, left + 6.5 * len(said), float(y), said


def circles_of(svg):
    """Return left and height of each circle: of the legend, of the picture."""
    paths = re.findall(r'<path d="([^"]*)" style="[^"]*var\(--c4', svg)
    found = (re.findall(r"M([\d.]+) ([\d.]+)a", path) for path in paths)
    return [[(float(x), float(y)) for x, y in path] for path in found]


def test_bars_lie_where_the_seconds_are():
    svg, scale = diagram(lanes()), (RIGHT - LEFT) / 4
    lefts = [LEFT + i * scale for i in (0, 1, 2, 1, 2, 3, 0)]
    found = [*bars(svg, "training"), *bars(svg, "waiting")]
    assert [left for _, left, _ in found] == pytest.approx(lefts)
    assert [b - a for _, a, b in found] == pytest.approx([scale] * 7)


def test_every_output_goes_up_to_the_epoch_that_first_used_it():
    svg = diagram(lanes())
    arrow = r'd="M[\d.]+ ([\d.]+)L[\d.]+ ([\d.]+)"><title>([^<]*)'
    arrows = re.findall(arrow, svg)
    assert [told for *_, told in arrows] == [
        f"epoch {i} of layer 2 used output {i} of layer 1" for i in (1, 2, 3)
    ]
    top, bottom = (y_of(svg, f"layer {layer}") for layer in (2, 1))
    assert all(top < float(to) < float(from_) < bottom for from_, to, _ in arrows)
    again = lane(*(epoch(i, float(i), used=1) for i in (1, 2, 3)))
    assert diagram([lanes()[0], again]).count("used output") == 1
    assert "used output" not in diagram([lanes()[0], lane(epoch(1, 1.0, used=9))])


def test_nothing_crosses_the_numbers_of_errors():
    """Arrows and lines lie between the edges, numbers outside."""
    numbers = [t for t in texts(diagram(lanes())) if re.fullmatch(r"\d\.\d\d", t[3])]
    assert len(numbers) == 8
    assert all(right < LEFT or left > RIGHT for left, right, _, _ in numbers)
    ends = sorted(words for left, _, _, words in numbers if left > RIGHT)
    assert ends == ["0.33", "0.67", "1.00", "2.00"]


@pytest.mark.parametrize("n", [8, 56, 1000])
def test_short_epochs_have_numbers_that_do_not_overlap(n):
    times = {"training": 0.01, "waiting": 9.0}
    svg = diagram([lane(*(epoch(i, 10.0 * i, **times) for i in range(1, n + 1)))])
    height = y_of(svg, "layer 1")
    shown = [t for t in texts(svg) if height < t[2] < height + 10 and t[3].isdigit()]
    assert min(n, 8) <= len(shown) <= 80
    assert all(a[1] <= b[0] + 1 for a, b in pairwise(shown))
    (step,) = {int(b[3]) - int(a[3]) for a, b in pairwise(shown)}
    assert str(step)[0] in "125"


@pytest.mark.parametrize(("seconds", "seen"), [(0.005, 10), (1e-6, 0)])
def test_sending_can_be_seen_however_short_it_is_or_is_not_there(seconds, seen):
    times = {"training": 0.98, "sending": seconds}
    svg = diagram([lane(*(epoch(i, i - 1.0, **times) for i in range(1, 11)))])
    assert (">sending</text>" in svg) == bool(seen)
    widths = [right - left for _, left, right in bars(svg, "sending")]
    assert len(widths) == seen
    assert min(widths, default=2) >= 2


def test_all_kinds_are_in_the_legend_and_drawn():
    svg = diagram([lane(epoch(1, 1.0, **dict.fromkeys(KINDS, 1.0)))])
    assert {kind for kind, _, _ in bars(svg)} == set(KINDS.values())
    for words in (*KINDS.values(), "training error", "validation error"):
        assert f">{words}</text>" in svg


def test_ranks_alone_are_drawn_as_before_there_were_teams():
    """To the byte."""
    drawn = diagram(lanes()), diagram(lanes(), window_of(lanes()[1], 1))
    every = diagram([lane(epoch(1, 1.0, **dict.fromkeys(KINDS, 1.0)))])
    digest = sha256("".join((*drawn, every)).encode()).hexdigest()
    assert digest == "a11315befe4e880941ff1962640c2d0b2648e21b4120d6b4abcd5a9ab53e494b"


def test_each_rank_of_a_team_has_a_lane():
    """The head sends, two measure, and who does neither waits."""
    times = {"training": 2.0, "transform": 0.5, "sending": 0.25, "monitor": 0.25}
    some = in_team(1.5, 1.0, 0.5, started=1.0, waiting=1.0, **times)
    svg = diagram([lane(some)])
    both = {"training": 1.0, "barriers": 1.0, "transforming": 0.5}
    found = lanes_of(svg)
    head = {"training": 1.5, "barriers": 0.5, "sending": 0.25}
    assert found["rank 4"] == both | head | {"waiting": 1.0, "measuring errors": 0.25}
    # The last time that it waits: while the head sends, and measures.
    assert found["rank 5"] == both | {"waiting": 0.25, "measuring errors": 0.25}
    assert found["rank 6"] == both | {"training": 0.5, "barriers": 1.5, "waiting": 0.25}
    assert svg.count(">barriers</text>") == 1
    assert y_of(svg, "rank 4") < y_of(svg, "ranks 5-6")
    ET.fromstring(svg)


def test_a_run_that_went_on_with_other_ranks_has_all_their_lanes():
    before, after = in_team(1.0, 1.0), in_team(0.5, 0.5, 0.5, number=3, started=3.0)
    svg = diagram([lane(before, epoch(2, 1.0), after)])
    assert list(lanes_of(svg)) == ["rank 5", "rank 6", "rank 4"]


@pytest.mark.parametrize("size", [2, 3, 16, 64])
def test_many_ranks_stay_readable(size):
    drawn = [lane(in_team(*[0.5] * size), title=f"layer {i}") for i in (1, 2)]
    svg = diagram(drawn)
    said = [words for *_, words in texts(svg)]
    others = f"ranks 5-{3 + size}" if size > 2 else "rank 5"
    assert said.count("rank 4") == said.count(others) == 2
    high = y_of(svg, "layer 1") - y_of(svg, "layer 2")
    assert high < 112 + max(3 * size, 90)
    # No lane lies on another, nor on what is below.
    tops = re.findall(r'd="M[\d.]+ ([\d.]+)h[\d.]+v([\d.]+)[^>]*><title>rank', svg)
    bars = sorted({(float(top), float(height)) for top, height in tops})
    assert len(bars) == 2 * size
    assert all(a + height < b for (a, height), (b, _) in pairwise(bars))


def test_a_window_shows_its_epochs_and_no_others():
    below, above = lanes()
    window = window_of(above, 1)
    assert window[0] < 2 < 3 < window[1]
    found = bars(diagram([below, above], window))
    assert all(LEFT <= a <= b <= RIGHT + 0.01 for _, a, b in found)
    assert "epoch 2 on output 2" in diagram([above], window)


def test_what_the_rank_did_otherwise_is_left_blank():
    some = epoch(1, 0.0, monitor=0.0001), epoch(2, 99.0, waiting=0.0001)
    scale = (RIGHT - LEFT) / 100
    assert all(b - a <= 1.1 * scale for _, a, b in bars(diagram([lane(*some)])))


def test_many_epochs_stay_few_bars_and_circles_that_do_not_overlap():
    some = (epoch(i, 0.01 * i, training=0.01, error=1 / i) for i in range(1, 5001))
    svg = diagram([lane(*some)])
    assert len(bars(svg)) < 1200
    assert max(b for _, _, b in bars(svg)) == pytest.approx(RIGHT, abs=1)
    x = [left for left, _ in circles_of(svg)[-1]]
    assert len(x) > 100
    assert min(b - a for a, b in pairwise(x)) > 5
    assert x[-1] + 2.6 == pytest.approx(RIGHT, abs=0.1)


def test_many_layers_share_elements_and_cover_the_same(monkeypatch):
    each = diagram(lanes())
    monkeypatch.setattr(spacetime, "_MOST_TIPS", 3)
    joined = diagram(lanes())
    assert bars(joined) == []
    assert joined.count("<title>") == 4  # training twice, waiting, outputs
    path = re.search(r'<path d="([^"]*)"[^>]*><title>training', joined)
    lefts = [float(x) for x in re.findall(r"M([\d.]+)", path[1])]
    assert lefts == pytest.approx([left for _, left, _ in bars(each, "training")][:3])
    heads = re.compile(r"M[\d.]+ [\d.]+l-3.5 7h7z")
    assert heads.findall(joined) == heads.findall(each)
    ET.fromstring(joined)


def test_validation_errors_are_circles_and_training_errors_a_line():
    """Figures 3 and 4 of the paper."""
    svg = diagram([lane(*(epoch(i, i - 1.0, error=1 / i) for i in (1, 2, 3)))])
    (line,) = re.findall(r'<polyline points="([^"]*)"', svg)
    legend, circles = circles_of(svg)
    assert len(legend) == 3
    points = [tuple(map(float, point.split(","))) for point in line.split()]
    # Left ends of circles above where the epochs end; the error is twice as large.
    assert [x for x, _ in points] == pytest.approx([x + 2.6 for x, _ in circles])
    assert all(y < below for (_, y), (_, below) in zip(circles, points, strict=True))


@pytest.mark.parametrize(
    "drawn",
    [
        [lane(epoch(1, 1.0, error=math.nan), epoch(2, 2.0, error=math.nan))],
        [lane(epoch(1, 1.0), epoch(2, 2.0))],  # equal ones
        [lane(epoch(1, 1.0), title="<b>")],
        [lane()],
        [lane(epoch(1, 1.0)), lane(title="layer 2")],
    ],
)
def test_what_may_be_missing_or_odd(drawn):
    svg = diagram(drawn, alt='"<')
    ET.fromstring(svg)
    assert "<b>" not in svg
    assert svg.count('text-anchor="end" style="fill:var(--ink') == len(drawn)
