"""The page: pieces of HTML, in which everything foreign is escaped; pure functions.

Text is escaped when it enters an element, unless it is :class:`Markup`, which only the
functions of this package make. Colours are CSS variables, so that a picture follows the
page; the style sheet is in ``style.css``.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import groupby

NOTHING = "–"
"""What stands where there is no number."""

# Nothing is loaded and nothing is run, whatever a file may have smuggled in.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_EMPTY = frozenset({"meta", "img", "br"})

_OPTION = re.compile(r"(?<!\S)(--[a-z][a-z-]+)")

# Characters of cells, and of facts without spaces, that stay on one line.
_SHORT_CELL, _SHORT_FACT = 20, 12

# Those of Okabe and Ito (2008), which the colour-blind tell apart: darker on light
# paper, lighter on dark paper. Nothing is told by colour alone: lines differ in dashes
# and markers, bars in pattern and height, too.
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


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


@dataclass(frozen=True)
class Picture:
    """A picture that lies in the page and perhaps in a file."""

    content: str | bytes  # an SVG element, or a PNG file
    alt: str  # what it shows, for those who do not see it
    label: str = ""  # what stands above it where a figure has several


@dataclass(frozen=True)
class Figure:
    """Pictures, at least one, with a caption."""

    name: str  # its place in the page, and the name of its file; a-z, 0-9, hyphens
    title: str  # a few words
    says: str  # one sentence: what is shown, with units and the run's main settings
    pictures: Sequence[Picture]
    layout: str = "chart"  # two abreast; "wide": scrolls; "tiles": of pixels

    def named(self) -> list[tuple[str, Picture]]:
        """Return each picture with a name of its own."""
        if len(self.pictures) == 1:
            return [(self.name, self.pictures[0])]
        return [(f"{self.name}-{n}", one) for n, one in enumerate(self.pictures, 1)]


Part = Markup | Figure
"""What a section is made of."""


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it; perhaps within the section before it."""

    name: str
    title: str
    content: Sequence[Part]
    within: bool = False


def element(name: str, /, *content: str, **attributes: str) -> Markup:
    """Return an element; content that is not ``Markup``, and attributes, are escaped.

    In names of attributes ``_`` stands for ``-``; one at the end is dropped, as in
    ``class_``.
    """
    described = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    if name in _EMPTY:
        return Markup(f"<{name}{described}>")
    safe = (part if isinstance(part, Markup) else escape(part) for part in content)
    return Markup(f"<{name}{described}>{''.join(safe)}</{name}>")


def paragraph(*content: str) -> Markup:
    """Return a paragraph."""
    return element("p", *content)


def note(text: str) -> Markup:
    """Return a paragraph on what is missing; an option in it is never broken."""
    marked = (
        element("code", piece) if _OPTION.fullmatch(piece) else piece
        for piece in _OPTION.split(text)
    )
    return element("p", *marked, class_="note")


def table(
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    theirs: Iterable[Sequence[str]] = (),
    class_: str = "",
) -> Markup:
    """Return a table, its title above it, that scrolls where there is no room.

    The first column names the rows, others are set flush right; cells are text or
    ``td`` elements. ``theirs`` are rows from elsewhere, such as a paper.
    """
    body = []
    for origin, some in (("", rows), ("apart", theirs)):
        for first, *others in some:
            name = element("th", first, scope="row")
            cells = map(_cell, head[1:], others)
            body.append(element("tr", name, *cells, class_=origin))
    names = (element("th", name, scope="col") for name in head)
    parts = element("thead", element("tr", *names)), element("tbody", *body)
    inner = element("table", *parts, aria_label=title)
    caption = element("p", title, class_="caption")
    scrolled = element("div", inner, class_="scroll", tabindex="0")
    return element("div", caption, scrolled, class_=f"table {class_}")


def _cell(column: str, text: str) -> Markup:
    if isinstance(text, Markup) and text.startswith("<td"):
        return text
    # Others may not be broken into lines.
    long = {"class_": "long"} if len(text) > _SHORT_CELL else {}
    return element("td", text, data_label=column, **long)


def facts(values: Mapping[str, str]) -> Markup:
    """Return numbers that catch the eye, each with its name, but for unknown ones."""
    shown = []
    for name, value in values.items():
        # A number is not broken: 1e-05 has a hyphen.
        is_number = len(value) <= _SHORT_FACT and " " not in value
        whole = {"class_": "whole"} if is_number else {}
        told = element("div", element("dt", name), element("dd", value, **whole))
        shown += [told] if value != NOTHING else []
    return element("dl", *shown, class_="facts")


def figure(drawn: Figure) -> Markup:
    """Return a figure with its caption."""
    attributes = {"tabindex": "0"} if drawn.layout == "wide" else {}
    pictures = [_picture(name, one) for name, one in drawn.named()]
    shown = element("div", *pictures, class_="pictures", **attributes)
    caption = element("figcaption", element("b", f"{drawn.title}."), " ", drawn.says)
    return element("figure", shown, caption, id=drawn.name, class_=drawn.layout)


def _picture(name: str, picture: Picture) -> Markup:
    label = element("span", picture.label, class_="label") if picture.label else ""
    if isinstance(picture.content, bytes):
        address = f"data:image/png;base64,{base64.b64encode(picture.content).decode()}"
        return element("div", label, element("img", src=address, alt=picture.alt))
    # Names in a picture become its own in the page.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}.", picture.content)
    return element("div", label, Markup(svg))


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the whole page: title, lead, contents, sections."""
    width = "width=device-width, initial-scale=1"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content=width),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(f"{VARIABLES}\n{STYLE}")),
    )
    header = element("header", element("h1", title), paragraph(lead))
    main = element("main", *map(_section, sections))
    body = element("body", header, _contents(sections), main)
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _contents(sections: Sequence[Section]) -> Markup:
    entries = []
    for section in sections:
        link = element("a", section.title, href=f"#{section.name}")
        entries.append(element("li", link, class_="within" if section.within else ""))
    listed = element("ul", *entries, class_="long" if len(entries) > 8 else "")
    return element("nav", element("h2", "Contents"), listed, aria_label="Contents")


def _section(section: Section) -> Markup:
    level = "h3" if section.within else "h2"
    parts = []
    # Charts stand abreast; text has no layout.
    for layout, group in groupby(section.content, lambda p: getattr(p, "layout", "")):
        drawn = [figure(p) if isinstance(p, Figure) else p for p in group]
        parts += [element("div", *drawn, class_="grid")] if layout == "chart" else drawn
    return element("section", element(level, section.title), *parts, id=section.name)


def colour(name: str) -> str:
    """Return a colour for CSS: the page's, or the light one outside of a page."""
    return f"var(--{name},{LIGHT[name]})"


def with_variables(svg: str) -> str:
    """Return a picture whose colours of light paper have become the page's."""
    names = {value: name for name, value in LIGHT.items()}

    def mine(found: re.Match[str]) -> str:
        return colour(names[found[0]]) if found[0] in names else found[0]

    return re.sub(r"(?<!,)#[0-9a-f]{6}\b", mine, svg)
