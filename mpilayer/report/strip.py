"""The strip above a layer's row in the space-time diagram: its errors; pure.

Santara et al. 2016, Figures 3 and 4: lines are training errors, circles validation.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from mpilayer.report.palette import colour
from mpilayer.report.run import Epoch

_RADIUS = 2.6


def errors(
    seen: Sequence[Epoch], x: Callable[[float], float], top: float, height: float
) -> Iterator[str]:
    """Yield a layer's training error over time as a line, validation as circles.

    Parameters
    ----------
    seen : sequence of Epoch
        In the order of time.
    x : callable
        Where a moment lies in the picture.
    top, height : float
        Of the strip.
    """
    lines = {
        "train": [(e.ended, e.train_error) for e in seen],
        "validation": [(e.ended, e.validation_error) for e in seen],
    }
    values = [v for line in lines.values() for _, v in line if math.isfinite(v)]
    if not values:
        return
    low, high = min(values), max(values)
    room = height - 22

    def y(value: float) -> float:
        return top + 6 + room * (high - value) / ((high - low) or 1)

    hues = {"train": "c0", "validation": "c4"}
    begins, ends = [], []
    for name, line in lines.items():
        points = [(x(t), y(v)) for t, v in line if math.isfinite(v)]
        hue = hues[name]
        if not points:
            continue
        look = f"fill:none;stroke:{colour(hue)}"
        if name == "validation":
            yield f'<path d="{circles(points)}" style="{look};stroke-width:1.4"/>'
        else:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            look += ";stroke-width:2;stroke-linejoin:round"
            yield f'<polyline points="{path}" style="{look}"/>'
        shown = [v for _, v in line if math.isfinite(v)]
        ends.append((points[-1], shown[-1], hue))
        if len(shown) > 1:
            begins.append((points[0], shown[0], hue))
    yield from _values(begins, -7, "end", top + height - 9)
    yield from _values(ends, 7, "start", top + height - 9)


def circles(points: Sequence[tuple[float, float]]) -> str:
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


def _values(
    ends: Sequence[tuple[tuple[float, float], float, str]],
    beside: float,
    anchor: str,
    lowest: float,
) -> Iterator[str]:
    """Yield values beside the ends of their lines, and apart."""
    order = sorted(ends, key=lambda end: end[0][1])
    heights = [end[0][1] for end in order]
    for number in range(1, len(heights)):
        heights[number] = max(heights[number], heights[number - 1] + 13)
    over = max(0.0, heights[-1] - lowest) if heights else 0.0
    heights = [height - over for height in heights]
    for (point, value, hue), height in zip(order, heights, strict=True):
        yield text(point[0] + beside, height + 4, f"{value:.2f}", anchor, hue, size=11)


def text(
    x: float,
    y: float,
    words: str,
    anchor: str,
    hue: str = "ink",
    size: int = 13,
    weight: str = "400",
) -> str:
    """Return words in the picture."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'style="fill:{colour(hue)};font-size:{size}px;font-weight:{weight}">'
        f"{escape(words)}</text>"
    )
