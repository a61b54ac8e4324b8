"""The space-time diagram of pre-training, written as SVG by hand; pure.

As in Figures 3 and 4 of Santara et al. 2016. A row a layer, the lowest at the bottom,
time to the right. In the row what the layer does; above it the errors of the layer;
between the rows the outputs that go up to the next layer. Kinds differ in colour,
pattern and height.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape

from mpilayer.report.palette import colour
from mpilayer.report.run import Epoch
from mpilayer.report.strip import circles, errors, text
from mpilayer.train.record import KINDS

_WIDTH, _LEFT, _RIGHT = 1040, 150, 74
_TOP, _STRIP, _BAR, _GAP, _BOTTOM = 44, 50, 22, 34, 46
# Height and place of a kind within the bar, as parts of it; the fill.
_LOOKS = {
    "training": (1.0, 0.0, f"fill:{colour('c0')}"),
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
_LEAST_WIDTH = 0.8
_LEAST_SENDING = 2.0
_LEAST_DISTANCE = 5.0
_DIGIT, _ROOM = 6.5, 6
_TICKS = 8
_MOST_TIPS = 4000


@dataclass(frozen=True)
class Lane:
    """A layer in the diagram.

    Attributes
    ----------
    title, subtitle : str
        To the left of its row.
    epochs : sequence of Epoch
        In the order of time.
    """

    title: str
    subtitle: str
    epochs: Sequence[Epoch]


@dataclass(frozen=True)
class _Piece:
    kind: str
    start: float
    stop: float
    epoch: Epoch


@dataclass(frozen=True)
class _Frame:
    """The seconds that are drawn, from left to right.

    Attributes
    ----------
    first, last : float
        Their bounds.
    numbered : bool
        Epochs tell their number and the output they use.
    tips : bool
        Every piece says what it is when pointed at; else there are too many for that,
        and those that look alike share one element.
    """

    first: float
    last: float
    numbered: bool
    tips: bool = True

    def x(self, seconds: float) -> float:
        """Return where a moment lies in the picture, at the edge if outside."""
        scale = (_WIDTH - _LEFT - _RIGHT) / max(self.last - self.first, 1e-9)
        return _LEFT + (min(max(seconds, self.first), self.last) - self.first) * scale

    def shows(self, start: float, stop: float) -> bool:
        """Tell whether a time is in the picture, at least in part."""
        return stop > self.first and start < self.last


def diagram(
    lanes: Sequence[Lane], window: tuple[float, float] | None = None, alt: str = ""
) -> str:
    """Return the diagram as an SVG element.

    Parameters
    ----------
    lanes : sequence of Lane
        The layers, lowest first; an output of one is the input of the next.
    window : (float, float), optional
        Seconds of training between which to draw; everything by default. In a window
        the epochs tell their number and the output they use.
    alt : str
        What the picture shows, for those who do not see it.
    """
    ends = [epoch.ended for lane in lanes for epoch in lane.epochs]
    first, last = window or (0.0, max(ends, default=1.0) or 1.0)
    frame = _Frame(first, last, window is not None)
    pieces = [list(_thinned(list(_pieces(lane.epochs)), frame)) for lane in lanes]
    frame = replace(frame, tips=sum(map(len, pieces)) <= _MOST_TIPS)
    step = _STRIP + _BAR + _GAP
    height = _TOP + len(lanes) * step + _BOTTOM - _GAP
    bars = [_TOP + number * step + _STRIP for number in reversed(range(len(lanes)))]
    parts = [
        f"<defs>{_PATTERNS}</defs>",
        _legend({p.kind for own in pieces for p in own}),
    ]
    parts += _axis(frame, bars[0] + _BAR + 8)
    for below, lane, bottom, top in zip(
        lanes[:-1], lanes[1:], bars[:-1], bars[1:], strict=True
    ):
        parts += _refreshes(below, lane, frame, bottom, top + _BAR)
    for lane, own, top in zip(lanes, pieces, bars, strict=True):
        parts += _row(lane, own, frame, top)
        seen = [e for e in lane.epochs if first <= e.ended <= last]
        parts += errors(seen, frame.x, top - _STRIP, _STRIP, (_LEFT, _WIDTH - _RIGHT))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img" aria-label="{escape(alt)}" style="font:13px system-ui,sans-serif">'
        f"{''.join(parts)}</svg>"
    )


def window_of(lane: Lane, n_epochs: int) -> tuple[float, float]:
    """Return when some epochs in the middle of a layer begin and end."""
    epochs = lane.epochs
    start = max(0, (len(epochs) - n_epochs) // 2)
    some = epochs[start : start + n_epochs]
    begin = some[0].started - some[0].seconds["waiting"]
    margin = 0.04 * (some[-1].ended - begin)
    return max(0.0, begin - margin), some[-1].ended + margin


def _row(
    lane: Lane, pieces: Sequence[_Piece], frame: _Frame, top: float
) -> Iterator[str]:
    """Yield the names of a layer, and what it does over time."""
    yield text(_LEFT - 12, top + 9, lane.title, "end", weight="600")
    yield text(_LEFT - 12, top + 24, lane.subtitle, "end", "soft", size=11)
    yield from _bars(pieces, frame, top)
    yield from _numbers(lane.epochs, frame, top)


def _numbers(epochs: Sequence[Epoch], frame: _Frame, top: float) -> Iterator[str]:
    """Yield the number of each epoch, or of every second, fifth ... if they are short.

    In colours of their own: short epochs lie below them, with waiting between.
    """
    ends = [(e.started, e.started + e.seconds["training"]) for e in epochs]
    seen = [
        (epoch, frame.x(start), frame.x(stop))
        for epoch, (start, stop) in zip(epochs, ends, strict=True)
        if frame.shows(start, stop)
    ]
    if not seen:
        return
    wide = _DIGIT * len(str(seen[-1][0].epoch)) + _ROOM
    distance = (seen[-1][1] - seen[0][1]) / max(1, len(seen) - 1)
    step = max(1, _round_step(wide / distance)) if distance else 1
    free = -math.inf
    for epoch, left, right in seen:
        label = _number(epoch, right - left, frame.numbered)
        middle, wide = (left + right) / 2, _DIGIT * len(str(epoch.epoch)) + _ROOM
        is_cut = left == frame.x(frame.first) or right == frame.x(frame.last)
        if epoch.epoch % step or middle - wide / 2 < free:
            continue
        if is_cut and frame.numbered and wide > right - left:
            continue
        free = middle + wide / 2
        if wide <= right - left:
            look = f"stroke:{colour('paper')}"
            yield f'<path d="M{left:.2f} {top}v{_BAR}" style="{look}"/>'
        yield text(middle, top + 15.5, label, "middle", "paper", 11, around="c0")


def _bars(pieces: Sequence[_Piece], frame: _Frame, top: float) -> Iterator[str]:
    for kind, (part, place, style) in _LOOKS.items():
        own = [piece for piece in pieces if piece.kind == kind]
        for group in [[piece] for piece in own] if frame.tips else [own] * bool(own):
            path = "".join(
                f"M{left:.2f} {top + place * _BAR:.1f}h{_width(piece, frame):.2f}"
                f"v{part * _BAR:.1f}H{left:.2f}z"
                for piece in group
                for left in (frame.x(piece.start),)
            )
            tip = _tip(group[0]) if frame.tips else KINDS[kind]
            yield f'<path d="{path}" style="{style}"><title>{tip}</title></path>'


def _width(piece: _Piece, frame: _Frame) -> float:
    """Return the width of a bar; that of sending can be seen however short it is."""
    least = _LEAST_SENDING if piece.kind == "sending" else 0.0
    return max(least, frame.x(piece.stop) - frame.x(piece.start))


def _number(epoch: Epoch, width: float, numbered: bool) -> str:
    if numbered and width > 118 and epoch.used:
        return f"epoch {epoch.epoch} on output {epoch.used}"
    return f"epoch {epoch.epoch}" if numbered and width > 60 else str(epoch.epoch)


def _pieces(epochs: Sequence[Epoch]) -> Iterator[_Piece]:
    """Yield what a layer does, in the order of time."""
    before = 0.0
    for epoch in epochs:
        waiting = max(before, epoch.started - epoch.seconds["waiting"])
        yield _Piece("waiting", waiting, epoch.started, epoch)
        now = epoch.started
        for kind in ("training", "transform", "sending", "monitor"):
            yield _Piece(kind, now, now + epoch.seconds[kind], epoch)
            now += epoch.seconds[kind]
        before = now


def _thinned(pieces: Sequence[_Piece], frame: _Frame) -> Iterator[_Piece]:
    """Yield the pieces that can be seen; many tiny ones become their largest kind."""
    x = frame.x
    tiny: list[_Piece] = []
    for piece in pieces:
        least = _LEAST_SENDING / 8 if piece.kind == "sending" else 0.0
        shown = frame.shows(piece.start, piece.stop)
        if not shown or x(piece.stop) - x(piece.start) <= least:
            continue
        if tiny and x(piece.start) - x(tiny[-1].stop) >= _LEAST_WIDTH:
            yield from _merged(tiny)  # then the rank did something else
            tiny = []
        if x(piece.stop) - x(piece.start) >= _LEAST_WIDTH:
            yield from _merged(tiny)
            tiny = []
            yield piece
            continue
        tiny.append(piece)
        if x(tiny[-1].stop) - x(tiny[0].start) >= _LEAST_WIDTH:
            yield from _merged(tiny)
            tiny = []
    yield from _merged(tiny)


def _merged(tiny: Sequence[_Piece]) -> Iterator[_Piece]:
    if not tiny:
        return
    sums = dict.fromkeys(KINDS, 0.0)
    for piece in tiny:
        sums[piece.kind] += piece.stop - piece.start
    most = max(sums, key=lambda kind: sums[kind])
    yield _Piece(most, tiny[0].start, tiny[-1].stop, tiny[0].epoch)


def _refreshes(
    below: Lane, lane: Lane, frame: _Frame, bottom: float, top: float
) -> Iterator[str]:
    """Yield a line from each output that leaves a layer to where it is taken up."""
    lines, heads = [], []
    for epoch, left in _taken_up(below, lane, frame):
        from_, to = frame.x(left), frame.x(epoch.started)
        tip = (
            f"epoch {epoch.epoch} of {escape(lane.title)} used output {epoch.used} of "
            f"{escape(below.title)}"
        )
        lines.append((f"M{from_:.2f} {bottom}L{to:.2f} {top}", tip))
        heads.append(f"M{to:.2f} {top}l-3.5 7h7z")
    if not heads:
        return
    if not frame.tips:
        lines = [("".join(path for path, _ in lines), "outputs taken up")]
    look = f"fill:none;stroke:{colour('c1')};stroke-width:1.4;opacity:.75"
    drawn = "".join(f'<path d="{d}"><title>{tip}</title></path>' for d, tip in lines)
    yield f'<g style="{look}">{drawn}</g>'
    yield f'<path d="{"".join(heads)}" style="fill:{colour("c1")}"/>'


def _taken_up(below: Lane, lane: Lane, frame: _Frame) -> Iterator[tuple[Epoch, float]]:
    """Yield the epochs that took up a new output, and when it had left.

    Of those that would lie too near to one another in the picture only the first.
    """
    left = {epoch.epoch: epoch.left for epoch in below.epochs}
    used, latest = 0, -math.inf
    for epoch in lane.epochs:
        if epoch.used == used or epoch.used not in left:
            continue
        used = epoch.used
        from_, to = left[used], epoch.started
        is_seen = to >= frame.first and from_ <= frame.last
        if is_seen and frame.x(to) - latest >= _LEAST_DISTANCE:
            latest = frame.x(to)
            yield epoch, from_


def _axis(frame: _Frame, bottom: float) -> Iterator[str]:
    """Yield the axis of time."""
    first, last, x = frame.first, frame.last, frame.x
    step = _round_step((last - first) / _TICKS)
    tick = math.ceil(first / step - 1e-9) * step
    while tick <= last * (1 + 1e-9):
        yield (
            f'<path d="M{x(tick):.2f} {_TOP}V{bottom}" '
            f'style="stroke:{colour("rule")};stroke-width:.7"/>'
        )
        yield text(x(tick), bottom + 15, f"{tick:.10g}", "middle", "soft", size=11)
        tick += step
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield text(middle, bottom + 33, "seconds of training", "middle", size=12)


def _round_step(least: float) -> float:
    """Return the next of 1, 2, 5, 10 ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(least, 1e-9)))
    return next(f * power for f in (1, 2, 5, 10, 20) if f * power >= least)


def _legend(seen: Collection[str]) -> str:
    """Return what the looks mean of kinds that are seen; others are too short."""
    parts, left = [], 12.0
    for kind, words in KINDS.items():
        if kind not in seen:
            continue
        part, place, style = _LOOKS[kind]
        parts.append(
            f'<rect x="{left}" y="{9 + place * 14:.1f}" width="22" '
            f'height="{part * 14:.1f}" style="{style}"/>'
        )
        parts.append(text(left + 28, 20, words, "start", size=12))
        left += 44 + 7 * len(words)
    marks = {
        "output taken up": ("c1", 1.4),
        "training error": ("c0", 2),
        "validation error": ("c4", 1.4),
    }
    for words, (hue, width) in marks.items():
        drawn = f"M{left} 16h22"
        if words == "validation error":
            drawn = circles([(left + x, 16) for x in (4, 11, 18)])
        look = f"fill:none;stroke:{colour(hue)};stroke-width:{width}"
        parts.append(f'<path d="{drawn}" style="{look}"/>')
        if hue == "c1":
            head = f"M{left + 22} 16l-7 -3.5v7z"
            parts.append(f'<path d="{head}" style="fill:{colour(hue)}"/>')
        parts.append(text(left + 28, 20, words, "start", size=12))
        left += 44 + 6.6 * len(words)
    return "".join(parts)


def _tip(piece: _Piece) -> str:
    epoch, words = piece.epoch, KINDS[piece.kind]
    seconds = piece.stop - piece.start
    return f"epoch {epoch.epoch}, output {epoch.used}: {words}, {seconds:.3g} s"
