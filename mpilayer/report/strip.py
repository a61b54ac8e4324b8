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
    seen: Sequence[Epoch],
    x: Callable[[float], float],
    top: float,
    height: float,
    edges: tuple[float, float],
) -> Iterator[str]:
    """Yield a layer's training error over time as a line, validation as circles.

    Numbers stand beside the picture, where nothing crosses them: to the left the
    highest and the lowest, to the right the last ones.

    Parameters
    ----------
    seen : sequence of Epoch
        In the order of time.
    x : callable
        Where a moment lies in the picture.
    top, height : float
        Of the strip.
    edges : (float, float)
        Where the picture begins and ends.
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

    for value in {high, low}:
        yield text(edges[0] - 12, y(value) + 4, f"{value:.2f}", "end", "soft", size=11)
    hues = {"train": "c0", "validation": "c4"}
    ends = []
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
        last = [v for _, v in line if math.isfinite(v)][-1]
        ends.append((points[-1][1], last, hue))
    yield from _values(ends, edges[1] + 7, top + height - 9)


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
    ends: Sequence[tuple[float, float, str]], left: float, lowest: float
) -> Iterator[str]:
    """Yield values as high as the ends of their lines, and apart."""
    order = sorted(ends)
    heights = [height for height, _, _ in order]
    for number in range(1, len(heights)):
        heights[number] = max(heights[number], heights[number - 1] + 13)
    over = max(0.0, heights[-1] - lowest) if heights else 0.0
    heights = [height - over for height in heights]
    for (_, value, hue), height in zip(order, heights, strict=True):
        yield text(left, height + 4, f"{value:.2f}", "start", hue, size=11)


def text(
    x: float,
    y: float,
    words: str,
    anchor: str,
    hue: str = "ink",
    size: int = 13,
    weight: str = "400",
    around: str = "",
) -> str:
    """Return words in the picture, perhaps on a ground of their own colour."""
    look = f"fill:{colour(hue)};font-size:{size}px;font-weight:{weight}"
    if around:
        look += f";paint-order:stroke;stroke:{colour(around)};stroke-width:5px"
        look += ";stroke-linejoin:round"
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="{look}">'
        f"{escape(words)}</text>"
    )
