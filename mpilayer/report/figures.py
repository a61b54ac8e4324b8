"""The door to matplotlib, which the ``plot`` extra brings.

Charts are SVG whose colours follow the page (:mod:`mpilayer.report.html`) and whose
text is text; arrays become PNG files. The same input gives the same bytes.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np

from mpilayer import files
from mpilayer.arrays import AnyArray
from mpilayer.errors import ConfigError
from mpilayer.report.html import LIGHT, SERIES, Figure, Picture, with_variables

_PIXELS = 150

# In points, which are pixels of the picture.
_WIDTH, _HEIGHT, _LEGEND_LINE = 420, 270, 17
_GAPS = ((6, 2), (2, 1.5), (7, 2, 1.5, 2), (4, 1, 1, 1, 1, 1))
_DASHES = ("-", *((0, gaps) for gaps in _GAPS))
_MARKERS = "osD^vP"
_MOST_MARKERS = 8
_SHORT_NAME = 20
_SHORT_AXIS = 300
_DARK = 0.3
_LOG_FROM = 6.0
_GOLDEN = (math.sqrt(5) - 1) / 2

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mpilayer",
    "font.size": 12,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.7,
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys((f"{x}.facecolor" for x in ("axes", "figure", "savefig")), "none"),
    **dict.fromkeys(("text.color", "axes.labelcolor"), LIGHT["ink"]),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), LIGHT["ink"]),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), LIGHT["soft"]),
}


@dataclass(frozen=True)
class Line:
    """Numbers over numbers; what cannot be drawn, such as NaN, is left out."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: int = 0  # number of its colour, dashes and marker
    joined: bool = True  # a line, else markers alone
    bare: bool = False  # thin, without markers: goes with that of the same style


@dataclass(frozen=True)
class Chart:
    """A figure of lines over common axes, which are named with their units."""

    name: str
    title: str
    says: str
    lines: Sequence[Line]
    x: str
    y: str
    alt: str  # what the picture shows, for those who do not see it
    x_log: bool = False
    y_log: bool = False
    levels: Mapping[str, float] = field(default_factory=dict)  # horizontal lines
    whole: bool = False  # the horizontal axis counts; if logarithmic in powers of 2
    from_zero: bool = False  # the vertical axis begins at 0
    top: float = math.inf  # what is higher is cut off, with what lies left of the rest

    def figure(self) -> Figure:
        """Return it as a figure."""
        names = [line.label for line in self.lines] + list(self.levels)
        legend = len(names) > 1 or bool(self.levels)
        columns = 2 if len(names) > 3 and max(map(len, names)) <= _SHORT_NAME else 1
        height = _HEIGHT + (_LEGEND_LINE * -(-len(names) // columns) if legend else 0)
        with self._drawn(height) as (figure, axes):
            _scale(axes, self)
            for line in self.lines:
                _draw_line(axes, line, self)
            for number, (label, value) in enumerate(self.levels.items()):
                look = {"ls": _DASHES[1 + number % (len(_DASHES) - 1)], "lw": 1.2}
                axes.axhline(value, color=LIGHT["soft"], label=label, **look)
            if self.from_zero:
                axes.set_ylim(bottom=0)
            if math.isfinite(self.top):
                _frame(axes, self)
            if legend:
                look = {"fontsize": 11, "handlelength": 3.2, "ncols": columns}
                figure.legend(loc="outside upper left", **look)
            return self._of(figure)

    def scatter(self, x: AnyArray, y: AnyArray, labels: AnyArray | None) -> Figure:
        """Return points (n,), each as its label (a number or a colour), or a dot."""
        with self._drawn(_WIDTH) as (figure, axes):
            if labels is None:
                axes.scatter(x, y, s=14, color=LIGHT[SERIES[0]], linewidths=0)
            elif labels.dtype.kind == "f":
                from matplotlib import colormaps

                # A bar of more colours would be an image. Rims are seen on any ground.
                ramp = colormaps["viridis"].resampled(12)
                rims = {"linewidths": 0.7, "edgecolors": LIGHT["ink"]}
                dots = axes.scatter(x, y, s=24, c=labels, cmap=ramp, **rims)
                figure.colorbar(dots, label="label")
            else:
                for number, group in enumerate(np.unique(labels).tolist()):
                    mine, hue = labels == group, LIGHT[SERIES[number % len(SERIES)]]
                    look = {"marker": f"${group}$", "s": 46, "linewidths": 0}
                    axes.scatter(x[mine], y[mine], color=hue, **look)
            return self._of(figure)

    def strips(self, levels: Mapping[str, tuple[float, float]]) -> Figure:
        """Return each line as a strip of points, one above the other, by their names.

        ``y`` of a line is not shown: points that lie close stand apart. ``levels`` are
        middle and half length of a bar beside each.
        """
        with self._drawn(60 + 44 * len(self.lines)) as (figure, axes):
            for place, line in enumerate(self.lines):
                middle, half = levels.get(line.label, (math.nan, 0.0))
                # Neighbours far apart, always the same.
                apart = np.arange(len(line.x)) * _GOLDEN % 1
                heights = place - 0.18 + 0.3 * apart
                hue = LIGHT[SERIES[place % len(SERIES)]]
                axes.plot(line.x, heights, "o", ms=5, alpha=0.75, color=hue, mew=0)
                look = {"fmt": "|", "ms": 9, "capsize": 3, "color": LIGHT["ink"]}
                axes.errorbar([middle], [place + 0.28], xerr=[half], **look)
            labels = [line.label.replace("$", r"\$") for line in self.lines]
            axes.set_yticks(range(len(labels)), labels)
            axes.set_ylim(len(labels) - 0.5, -0.5)
            axes.grid(False, axis="y")
            return self._of(figure)

    @contextmanager
    def _drawn(self, height: float) -> Iterator[tuple[Any, Any]]:
        """Give what is drawn on, with named axes, whose numbers end with no zeros."""
        with _drawing(_SETTINGS):
            figure = _figure(_WIDTH / 72, height / 72)
            axes = figure.add_subplot(xlabel=self.x, ylabel=self.y)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(lambda v, _: f"{v:.10g}".replace("-", "−"))
            yield figure, axes

    def _of(self, figure: Any) -> Figure:
        picture = Picture(_svg(figure, self.alt), self.alt)
        return Figure(self.name, self.title, self.says, [picture])


def is_wide(low: float, high: float) -> bool:
    """Tell whether positive numbers lie so far apart that they need a log scale."""
    return high > _LOG_FROM * low


def available() -> bool:
    """Tell whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def check_available() -> None:
    """Check that matplotlib is installed; raises ConfigError."""
    if not available():
        raise ConfigError(
            "a report needs matplotlib for its figures; it is not installed. "
            "Install it: pip install 'mpilayer[plot]'."
        )


def draw_filters(filters: AnyArray, path: Path, title: str) -> None:
    """Draw what each hidden unit responds to most into a file, whose ending tells how.

    ``filters`` (n_hidden, height, width) become tiles in grey, each of its own scale,
    symmetric about grey = 0. Raises ConfigError if matplotlib cannot.
    """
    columns = math.ceil(math.sqrt(1.3 * len(filters)))
    rows = -(-len(filters) // columns)
    with _drawing({}):
        figure = _figure(0.6 * columns, 0.6 * rows + 0.5)
        for number, tile in enumerate(filters):
            axes = figure.add_subplot(rows, columns, number + 1)
            bound = float(np.abs(tile).max()) or 1.0
            axes.imshow(tile, cmap="gray", vmin=-bound, vmax=bound)
            axes.set_axis_off()
        figure.suptitle(title, fontsize=7)
        with files.replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:])


def tiles(images: AnyArray, alt: str, label: str = "", signed: bool = False) -> Picture:
    """Return images (n, height, width) in a square of rows, grey from 0 (black) to 1.

    If ``signed`` each has its own scale instead, symmetric about grey = 0.
    """
    if signed:
        bounds = np.abs(images).max(axis=(1, 2), keepdims=True)
        images = 0.5 + 0.5 * images / np.where(bounds > 0, bounds, 1)
    n, height, width = images.shape
    gap = max(1, width // 14)
    columns = math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap)
    # Lines that can be told from the images' usual background.
    sheet = np.full(shape, 0.85 if np.median(images) > _DARK else 0.5)
    for number, image in enumerate(images):
        top = gap + number // columns * (height + gap)
        left = gap + number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    # matplotlib has brought Pillow, whose grey files are a third as large as its own.
    from PIL import Image

    out, grey = BytesIO(), (255 * np.clip(sheet, 0, 1)).round().astype(np.uint8)
    Image.fromarray(grey).save(out, format="png", optimize=True)
    return Picture(out.getvalue(), alt, label)


@contextmanager
def _drawing(settings: dict[Any, Any]) -> Iterator[None]:
    """Let matplotlib draw with its defaults and these settings alone.

    A notebook names its own canvas to programs that it starts, and a ``matplotlibrc``
    may ask for what is not installed, such as LaTeX.
    """
    # Read once, when matplotlib loads.
    os.environ["MPLBACKEND"] = "agg"
    try:
        import matplotlib as mpl

        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(settings)
            yield
    except Exception as error:
        raise ConfigError(
            f"matplotlib must be able to draw; {type(error).__name__}: {error}. Mend "
            "its installation or its matplotlibrc, and draw again: mpilayer report."
        ) from error


def _scale(axes: Any, drawn: Chart) -> None:
    from matplotlib.ticker import MaxNLocator

    if drawn.x_log:
        base = 2 if drawn.whole else 10
        axes.set_xscale("log", base=base, nonpositive="mask")
        _ticks(axes.xaxis, [value for line in drawn.lines for value in line.x], base)
    elif drawn.whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if drawn.y_log:
        axes.set_yscale("log", nonpositive="mask")
        values = [value for line in drawn.lines for value in line.y]
        _ticks(axes.yaxis, [value for value in values if value <= drawn.top])


def _ticks(axis: Any, values: Sequence[float], base: int = 10) -> None:
    """Label a logarithmic axis with plain numbers, more of them on a short one."""
    from matplotlib.ticker import LogLocator, NullFormatter

    known = [value for value in values if value > 0]
    is_short = not known or max(known) < _SHORT_AXIS * min(known)
    subs = (1, 2, 5) if is_short and base == 10 else (1,)
    axis.set_major_locator(LogLocator(base, subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _frame(axes: Any, drawn: Chart) -> None:
    """Bound the axes by what is not above the top."""
    pairs = [pair for line in drawn.lines for pair in zip(line.x, line.y, strict=True)]
    seen = [(x, y) for x, y in pairs if y <= drawn.top]
    # The usual margins would be those of all values.
    low, first, last = min(y for _, y in seen), min(seen)[0], max(seen)[0]
    margin = 0 if drawn.y_log else 0.05 * (drawn.top - low)
    if low < drawn.top:  # else a single value, or equal ones
        axes.set_ylim(low - margin, drawn.top)
    if first < last:
        axes.set_xlim(first - 0.03 * (last - first), last + 0.03 * (last - first))


def _draw_line(axes: Any, line: Line, drawn: Chart) -> None:
    x, y = np.array([line.x, line.y], float)
    kept = np.isfinite(x) & np.isfinite(y)
    kept &= ((x > 0) | (not drawn.x_log)) & ((y > 0) | (not drawn.y_log))
    style, n = line.style, int(kept.sum())
    look = {
        "color": LIGHT[SERIES[style % len(SERIES)]],
        "linestyle": _DASHES[style % len(_DASHES)] if line.joined else "none",
        "linewidth": 1 if line.bare else 2,
        "marker": "" if line.bare else _MARKERS[style % len(_MARKERS)],
        "markevery": max(1, n // _MOST_MARKERS) if line.joined else 1,
    }
    # A dollar sign begins a formula.
    label = line.label.replace("$", r"\$")
    axes.plot(x[kept], y[kept], label=label, markersize=5, **look)


def _svg(figure: Any, alt: str) -> str:
    """Return a figure as an SVG element for a page."""
    out = StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"(font: [\d.]+px) [^;\"]*", r"\1 system-ui, sans-serif", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = text.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
    return with_variables(text).strip()


def _figure(width: float, height: float) -> Any:
    # Without pyplot there are no windows, no global state, nothing to close.
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=_PIXELS, layout="constrained")
