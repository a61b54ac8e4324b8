"""Colours that the colour-blind tell apart; the style sheet is in ``style.css``.

Colours are CSS variables, so that a picture follows the page. The hues are those of
Okabe and Ito (2008), darker on light paper and lighter on dark paper. Nothing is told
by colour alone: lines differ in dashes and markers, bars in pattern and height, too.
"""

import re
from importlib.resources import files

_COLOURS = {
    "ink": ("#1f2328", "#e6edf3"),
    "soft": ("#59636e", "#9da7b3"),
    "rule": ("#d1d9e0", "#3d444d"),
    "paper": ("#ffffff", "#0d1117"),
    "card": ("#f6f8fa", "#161b22"),
    "c0": ("#0072b2", "#56b4e9"),
    "c1": ("#bf4400", "#ff9457"),
    "c2": ("#007a5a", "#3ccf9f"),
    "c3": ("#a13d86", "#e59bd0"),
    "c4": ("#866a00", "#f0e442"),
    "c5": ("#4b5563", "#b4bcc6"),
}
LIGHT = {name: light for name, (light, _) in _COLOURS.items()}
DARK = {name: dark for name, (_, dark) in _COLOURS.items()}
SERIES = ("c0", "c1", "c2", "c3", "c4", "c5")
"""Names of the colours of lines, in the order in which they are used."""


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


VARIABLES = (
    f":root{{{_variables(LIGHT)}}}\n"
    "@media screen and (prefers-color-scheme:dark)"
    f"{{:root{{{_variables(DARK)}}}}}\n"
)
"""The style sheet that defines the colours; on paper they are always light."""

STYLE = files("mpilayer.report").joinpath("style.css").read_text("utf-8")
"""The style sheet of the page."""


def colour(name: str) -> str:
    """Return a colour for CSS: the page's, or the light one outside of a page."""
    return f"var(--{name},{LIGHT[name]})"


def with_variables(svg: str) -> str:
    """Return a picture whose colours of light paper have become the page's."""
    names = {value: name for name, value in LIGHT.items()}
    return re.sub(
        r"(?<!,)#[0-9a-f]{6}\b",
        lambda found: colour(names[found[0]]) if found[0] in names else found[0],
        svg,
    )
