"""The space-time diagram of pre-training, written as SVG by hand; pure.

As in Figures 3 and 4 of Santara et al. 2016. A row a layer, the lowest at the bottom,
time to the right. In the row what the layer does; above it the errors of the layer, a
line those of training, circles those of validation; between the rows the outputs that
go up to the next layer. Kinds differ in colour, pattern and height. Of a team the bar
is the head's, and every other rank has a thin lane below it.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, pairwise

from mpilayer.report.html import colour
from mpilayer.report.pieces import LEAST_SENDING, NAMES, Frame, Piece, pieces, taken_up
from mpilayer.report.run import Epoch
from mpilayer.words import which_ranks

_WIDTH, _LEFT, _RIGHT = 1040, 150, 74
_TOP, _STRIP, _BAR, _GAP, _BOTTOM = 44, 50, 22, 34, 46
# Of the lanes of a team: what parts them from the bar, what they may take, and the
# least and the largest height of one.
_APART, _ROOM_FOR_LANES, _LANE = 5, 90, (3, 10)
# Height and place of a kind within the bar, as parts of it; the fill.
_LOOKS = {
    "training": (1.0, 0.0, f"fill:{colour('c0')}"),
    "barriers": (1.0, 0.0, "fill:url(#barriers)"),
    "waiting": (
        0.3,
        0.35,
        f"fill:none;stroke:{colour('soft')};stroke-width:1;stroke-dasharray:3 2",
    ),
    "transform": (1.0, 0.0, "fill:url(#transform)"),
    "monitor": (0.6, 0.2, "fill:url(#monitor)"),
    # Last, so that it lies above others: it takes no time worth speaking of.
    "sending": (1.4, -0.2, f"fill:{colour('c3')}"),
}
_PATTERNS = (
    '<pattern id="transform" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)">'
    f'<rect width="6" height="6" style="fill:{colour("paper")}"/>'
    f'<rect width="3.4" height="6" style="fill:{colour("c4")}"/></pattern>'
    '<pattern id="monitor" width="4" height="4" patternUnits="userSpaceOnUse">'
    f'<rect width="4" height="4" style="fill:{colour("paper")}"/>'
    f'<rect width="4" height="2" style="fill:{colour("c2")}"/></pattern>'
)
# In thin lanes dashes would be a haze.
_THIN_WAITING = f"fill:{colour('soft')};opacity:.45"
# Of teams alone.
_BARRIERS = (
    '<pattern id="barriers" width="3" height="3" patternUnits="userSpaceOnUse">'
    f'<rect width="3" height="3" style="fill:{colour("paper")}"/>'
    f'<rect width="1" height="3" style="fill:{colour("c0")}"/></pattern>'
)
_LEAST_DISTANCE = 5.0
_DIGIT, _ROOM = 6.5, 6
_RADIUS = 2.6
_TICKS = 8
_MOST_TIPS = 4000


@dataclass(frozen=True)
class Lane:
    """A layer in the diagram: what stands beside its row, its epochs in order."""

    title: str
    subtitle: str
    epochs: Sequence[Epoch]

    @property
    def n_others(self) -> int:
        """How many ranks of a team there were at most besides its head."""
        return max(0, *(len(epoch.team) - 1 for epoch in self.epochs), 0)

    @property
    def lane(self) -> int:
        """The height of what each of them has."""
        least, most = _LANE
        return max(least, min(most, _ROOM_FOR_LANES // max(1, self.n_others)))

    @property
    def depth(self) -> int:
        """The height of the lanes below the bar."""
        return self.n_others and _APART + self.lane * self.n_others


def diagram(
    lanes: Sequence[Lane], window: tuple[float, float] | None = None, alt: str = ""
) -> str:
    """Return the diagram of layers, the lowest first, as an SVG element.

    In a window, of seconds of training, epochs tell their number and the output they
    use. ``alt`` says what the picture shows, for those who do not see it.
    """
    ends = [epoch.ended for lane in lanes for epoch in lane.epochs]
    first, last = window or (0.0, max(ends, default=1.0) or 1.0)
    frame = Frame(first, last, _LEFT, _WIDTH - _RIGHT, window is not None)
    done = [
        [[*pieces(lane.epochs, place, frame)] for place in range(1 + lane.n_others)]
        for lane in lanes
    ]
    frame.tips = sum(len(own) for ranks in done for own in ranks) <= _MOST_TIPS
    depths = [lane.depth for lane in reversed(lanes)]
    *tops, height = accumulate(
        (_STRIP + _BAR + _GAP + depth for depth in depths), initial=_TOP + _STRIP
    )
    height += _BOTTOM - _GAP - _STRIP
    bars = tops[::-1]
    kinds = {piece.kind for ranks in done for own in ranks for piece in own}
    parts = [
        f"<defs>{_PATTERNS}{_BARRIERS if 'barriers' in kinds else ''}</defs>",
        *_legend(kinds),
        *_axis(frame, bars[0] + _BAR + lanes[0].depth + 8),
    ]
    rows = zip(lanes, bars, strict=True)
    for (below, bottom), (lane, top) in pairwise(rows):
        parts += _refreshes(below, lane, frame, bottom, top + _BAR + lane.depth)
    for lane, ranks, top in zip(lanes, done, bars, strict=True):
        parts.append(_text(_LEFT - 12, top + 9, lane.title, "end"))
        parts.append(_text(_LEFT - 12, top + 24, lane.subtitle, "end", "soft", 11))
        parts += _of_team(lane, ranks, frame, top)
        parts += _numbers(lane.epochs, frame, top)
        parts += _errors(lane.epochs, frame, top - _STRIP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img" aria-label="{escape(alt)}" style="font:13px system-ui,sans-serif">'
        f"{''.join(parts)}</svg>"
    )


def window_of(lane: Lane, n_epochs: int) -> tuple[float, float]:
    """Return when some epochs in the middle of a layer begin and end."""
    start = max(0, (len(lane.epochs) - n_epochs) // 2)
    some = lane.epochs[start : start + n_epochs]
    begin = some[0].started - some[0].waiting
    margin = 0.04 * (some[-1].ended - begin)
    return max(0.0, begin - margin), some[-1].ended + margin


def _of_team(
    lane: Lane, ranks: Sequence[Sequence[Piece]], frame: Frame, top: float
) -> Iterator[str]:
    """Yield the bar of the head, and below it a lane of each other rank."""
    first = top + _BAR + _APART
    for place, own in enumerate(ranks[1:]):
        yield from _bars(own, frame, first + place * lane.lane, lane.lane - 1)
    # Above the lanes, into which what it sends reaches.
    yield from _bars(ranks[0], frame, top)
    teams = [epoch.team for epoch in lane.epochs if epoch.team]
    for some, y in (
        ([team[0] for team in teams], top + 15),
        ([own for team in teams for own in team[1:]], top + _BAR + lane.depth / 2 + 7),
    ):
        if some:
            named = which_ranks({rank for rank, *_ in some})
            yield _text(_WIDTH - _RIGHT + 7, y, named, "start", "soft", 11)


def _numbers(epochs: Sequence[Epoch], frame: Frame, top: float) -> Iterator[str]:
    """Yield numbers of epochs, of every second, fifth ... if they are short."""
    seen = []
    for epoch in epochs:
        start, stop = epoch.started, epoch.started + epoch.training
        if frame.shows(start, stop):
            seen.append((epoch, frame.x(start), frame.x(stop)))
    if not seen:
        return
    wide = _DIGIT * len(str(seen[-1][0].epoch)) + _ROOM
    distance = (seen[-1][1] - seen[0][1]) / max(1, len(seen) - 1)
    step = max(1, _round_step(wide / distance)) if distance else 1
    free = -math.inf
    for epoch, left, right in seen:
        middle, wide = (left + right) / 2, _DIGIT * len(str(epoch.epoch)) + _ROOM
        is_cut = left == frame.x(frame.first) or right == frame.x(frame.last)
        if epoch.epoch % step or middle - wide / 2 < free:
            continue
        if is_cut and frame.numbered and wide > right - left:
            continue
        free = middle + wide / 2
        if wide <= right - left:
            yield _path(f"M{left:.2f} {top}v{_BAR}", f"stroke:{colour('paper')}")
        label = str(epoch.epoch)
        if frame.numbered and right - left > 60:
            label = f"epoch {epoch.epoch}"
            if right - left > 118 and epoch.used:
                label += f" on output {epoch.used}"
        yield _text(middle, top + 15.5, label, "middle", "paper", 11)


def _bars(
    done: Sequence[Piece], frame: Frame, top: float, height: float = _BAR
) -> Iterator[str]:
    for kind, (part, place, style) in _LOOKS.items():
        own = [piece for piece in done if piece.kind == kind]
        if kind == "waiting" and height < _BAR:
            style = _THIN_WAITING
        # That of sending can be seen however short it is.
        least = LEAST_SENDING if kind == "sending" else 0.0
        bars = [
            f"M{frame.x(piece.start):.2f} {top + place * height:.1f}"
            f"h{max(least, frame.width(piece, piece)):.2f}"
            f"v{part * height:.1f}H{frame.x(piece.start):.2f}z"
            for piece in own
        ]
        if frame.tips:
            for bar, piece in zip(bars, own, strict=True):
                yield _path(bar, style, piece.tip)
        elif bars:
            yield _path("".join(bars), style, NAMES[kind])


def _refreshes(
    below: Lane, lane: Lane, frame: Frame, bottom: float, top: float
) -> Iterator[str]:
    """Yield a line from each output that leaves a layer to where it is taken up."""
    lines, heads, latest = [], [], -math.inf
    for made, epoch in taken_up(below.epochs, lane.epochs):
        to = frame.x(epoch.started)
        is_seen = epoch.started >= frame.first and made.left <= frame.last
        # Few of a crowd.
        if not is_seen or to - latest < _LEAST_DISTANCE:
            continue
        latest = to
        tip = (
            f"epoch {epoch.epoch} of {escape(lane.title)} used output {epoch.used} of "
            f"{escape(below.title)}"
        )
        lines.append((f"M{frame.x(made.left):.2f} {bottom}L{to:.2f} {top}", tip))
        heads.append(f"M{to:.2f} {top}l-3.5 7h7z")
    if not heads:
        return
    if not frame.tips:
        lines = [("".join(path for path, _ in lines), "outputs taken up")]
    look = f"fill:none;stroke:{colour('c1')};stroke-width:1.4;opacity:.75"
    yield f'<g style="{look}">{"".join(_path(d, tip=tip) for d, tip in lines)}</g>'
    yield _path("".join(heads), f"fill:{colour('c1')}")


def _errors(epochs: Sequence[Epoch], frame: Frame, top: float) -> Iterator[str]:
    """Yield a layer's training error over time as a line, validation as circles.

    Numbers stand beside the picture, where nothing crosses them: to the left the
    highest and the lowest, to the right the last ones.
    """
    known: dict[str, list[tuple[float, float]]] = {"c0": [], "c4": []}
    for e in (e for e in epochs if frame.first <= e.ended <= frame.last):
        for hue, error in (("c0", e.train_error), ("c4", e.validation_error)):
            known[hue] += [(frame.x(e.ended), error)] if math.isfinite(error) else []
    values = [error for own in known.values() for _, error in own]
    if not values:
        return
    low, high = min(values), max(values)

    def y(value: float) -> float:
        return top + 6 + (_STRIP - 22) * (high - value) / ((high - low) or 1)

    for value in {high, low}:
        yield _text(_LEFT - 12, y(value) + 4, f"{value:.2f}", "end", "soft", 11)
    ends = [(y(own[-1][1]), own[-1][1], hue) for hue, own in known.items() if own]
    for hue, own in known.items():
        points = [(x, y(error)) for x, error in own]
        look = f"fill:none;stroke:{colour(hue)}"
        if points and hue == "c4":
            yield _path(_circles(points), f"{look};stroke-width:1.4")
        elif points:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            look += ";stroke-width:2;stroke-linejoin:round"
            yield f'<polyline points="{path}" style="{look}"/>'
    # As high as the ends of their lines, apart, and not too low.
    ends.sort()
    heights = [*accumulate((end[0] for end in ends), lambda a, b: max(b, a + 13))]
    over = max(0.0, heights[-1] - (top + _STRIP - 9))
    for (_, value, hue), height in zip(ends, heights, strict=True):
        left = _WIDTH - _RIGHT + 7
        yield _text(left, height - over + 4, f"{value:.2f}", "start", hue, 11)


def _circles(points: Sequence[tuple[float, float]]) -> str:
    """Return a path of circles, the last of them and others that do not overlap."""
    kept: list[tuple[float, float]] = []
    for x, y in reversed(points):
        if not kept or kept[-1][0] - x >= 2 * _RADIUS:
            kept.append((x, y))
    arc = f"a{_RADIUS} {_RADIUS} 0 1 1 "
    return "".join(
        f"M{x - _RADIUS:.1f} {y:.1f}{arc}{2 * _RADIUS} 0{arc}{-2 * _RADIUS} 0"
        for x, y in reversed(kept)
    )


def _axis(frame: Frame, bottom: float) -> Iterator[str]:
    """Yield the axis of time."""
    first, last, x = frame.first, frame.last, frame.x
    step = _round_step((last - first) / _TICKS)
    tick = math.ceil(first / step - 1e-9) * step
    while tick <= last * (1 + 1e-9):
        look = f"stroke:{colour('rule')};stroke-width:.7"
        yield _path(f"M{x(tick):.2f} {_TOP}V{bottom}", look)
        yield _text(x(tick), bottom + 15, f"{tick:.10g}", "middle", "soft", 11)
        tick += step
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield _text(middle, bottom + 33, "seconds of training", "middle", size=12)


def _round_step(least: float) -> float:
    """Return the next of 1, 2, 5, 10 ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(least, 1e-9)))
    return next(f * power for f in (1, 2, 5, 10, 20) if f * power >= least)


def _legend(seen: Collection[str]) -> Iterator[str]:
    """Yield what the looks mean of kinds that are seen; others are too short."""
    left, apart = 12.0, 36 if "barriers" in seen else 44
    for kind in (kind for kind in NAMES if kind in seen):
        part, place, style = _LOOKS[kind]
        yield (
            f'<rect x="{left}" y="{9 + place * 14:.1f}" width="22" '
            f'height="{part * 14:.1f}" style="{style}"/>'
        )
        yield _text(left + 28, 20, NAMES[kind], "start", size=12)
        left += apart + 7 * len(NAMES[kind])
    for words, hue, width in (
        ("output taken up", "c1", 1.4),
        ("training error", "c0", 2),
        ("validation error", "c4", 1.4),
    ):
        line = f"M{left} 16h22"
        drawn = _circles([(left + x, 16) for x in (4, 11, 18)]) if hue == "c4" else line
        yield _path(drawn, f"fill:none;stroke:{colour(hue)};stroke-width:{width}")
        if hue == "c1":
            yield _path(f"M{left + 22} 16l-7 -3.5v7z", f"fill:{colour(hue)}")
        yield _text(left + 28, 20, words, "start", size=12)
        left += apart + 6.6 * len(words)


def _path(drawn: str, look: str = "", tip: str = "") -> str:
    style = f' style="{look}"' if look else ""
    end = f"><title>{tip}</title></path>" if tip else "/>"
    return f'<path d="{drawn}"{style}{end}'


def _text(
    x: float, y: float, words: str, anchor: str, hue: str = "ink", size: int = 13
) -> str:
    # The names of rows are bold, numbers of epochs on a ground of their own colour.
    look = f"fill:{colour(hue)};font-size:{size}px"
    look += f";font-weight:{600 if size == 13 else 400}"
    if hue == "paper":
        look += f";paint-order:stroke;stroke:{colour('c0')};stroke-width:5px"
        look += ";stroke-linejoin:round"
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="{look}">'
        f"{escape(words)}</text>"
    )
