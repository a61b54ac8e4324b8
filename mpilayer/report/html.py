"""The page: pieces of HTML, in which everything foreign is escaped; pure functions.

Text is escaped when it enters an element, unless it is :class:`Markup`, which only the
functions of this package make.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from mpilayer.report.palette import VARIABLES
from mpilayer.report.style import STYLE

# Nothing is loaded and nothing is run, whatever a file may have smuggled in.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_EMPTY = frozenset({"meta", "img", "br"})

_OPTION = re.compile(r"(?<!\S)(--[a-z][a-z-]+)")

# Characters of cells, and of facts without spaces, that stay on one line.
_SHORT_CELL, _SHORT_FACT = 20, 12


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


@dataclass(frozen=True)
class Picture:
    """A picture that lies in the page and perhaps in a file.

    Attributes
    ----------
    content : str or bytes
        An SVG element, or a PNG file.
    alt : str
        What it shows, for those who do not see it.
    label : str
        What stands above it where a figure has several.
    """

    content: str | bytes
    alt: str
    label: str = ""

    @property
    def suffix(self) -> str:
        """Ending of its file."""
        return ".svg" if isinstance(self.content, str) else ".png"


@dataclass(frozen=True)
class Figure:
    """Pictures with a caption.

    Attributes
    ----------
    name : str
        Its place in the page, and the name of its file; letters, digits and hyphens.
    title : str
        A few words.
    says : str
        One sentence: what is shown, with units and the run's main settings.
    pictures : tuple of Picture
        At least one.
    layout : str
        ``chart`` (two abreast), ``wide`` (with scroll bars where there is no room) or
        ``tiles`` (pictures of pixels).
    """

    name: str
    title: str
    says: str
    pictures: tuple[Picture, ...]
    layout: str = "chart"


Part = Markup | Figure
"""What a section is made of."""


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it.

    Attributes
    ----------
    name : str
        Its place in the page.
    title : str
        The heading.
    content : tuple of Part
        In this order.
    within : bool
        It belongs to the section before it.
    """

    name: str
    title: str
    content: tuple[Part, ...]
    within: bool = False


def element(name: str, /, *content: str, **attributes: str) -> Markup:
    """Return an element; content and attributes are escaped.

    Parameters
    ----------
    name : str
        Of the element.
    *content : str
        Texts, and elements as ``Markup``.
    **attributes : str
        With ``_`` for ``-``; one at the end is dropped, as in ``class_``.
    """
    described = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    if name in _EMPTY:
        return Markup(f"<{name}{described}>")
    return Markup(f"<{name}{described}>{join(content)}</{name}>")


def join(parts: Iterable[str], between: str = "") -> Markup:
    """Return parts one after the other, escaped where they are not ``Markup``."""
    safe = [part if isinstance(part, Markup) else escape(part) for part in parts]
    return Markup(between.join(safe))


def paragraph(*content: str) -> Markup:
    """Return a paragraph."""
    return element("p", *content)


def note(text: str) -> Markup:
    """Return a paragraph that says what is missing, or what to take care of.

    Options in it, such as ``--code``, are never broken at a hyphen.
    """
    marked = (
        element("code", piece) if _OPTION.fullmatch(piece) else piece
        for piece in _OPTION.split(text)
    )
    return element("p", *marked, class_="note")


def table(
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    apart: Iterable[int] = (),
) -> Markup:
    """Return a table that scrolls where there is no room.

    Parameters
    ----------
    title : str
        Its caption.
    head : sequence of str
        A heading for each column; the first column names the rows.
    rows : iterable of sequences of str
        The cells; all but the first of a row are set flush right.
    apart : iterable of int
        Numbers of the rows that come from elsewhere, such as a paper.
    """
    foreign = set(apart)
    top = element("tr", *(element("th", text, scope="col") for text in head))
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(
                element("td", text, data_label=column, **_long(text))
                for column, text in zip(head[1:], row[1:], strict=True)
            ),
            class_="apart" if number in foreign else "",
        )
        for number, row in enumerate(rows)
    ]
    inner = element(
        "table",
        element("thead", top),
        element("tbody", *body),
        aria_label=title,
    )
    return captioned(title, inner)


def captioned(title: str, inner: Markup, class_: str = "") -> Markup:
    """Return a table below its caption, which stays where it is when that scrolls."""
    return element(
        "div",
        element("p", title, class_="caption"),
        element("div", inner, class_="scroll", tabindex="0"),
        class_=f"table {class_}",
    )


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Return numbers that catch the eye, each with its name."""
    return element(
        "dl",
        *(
            element("div", element("dt", name), element("dd", value, **_whole(value)))
            for name, value in pairs
        ),
        class_="facts",
    )


def folded(title: str, *content: str) -> Markup:
    """Return something long that opens at a click."""
    return element("details", element("summary", title), *content)


def figure(drawn: Figure) -> Markup:
    """Return a figure with its caption."""
    several = len(drawn.pictures) > 1
    pictures = [
        _picture(f"{drawn.name}-{number}" if several else drawn.name, one)
        for number, one in enumerate(drawn.pictures, start=1)
    ]
    attributes = {"tabindex": "0"} if drawn.layout == "wide" else {}
    return element(
        "figure",
        element("div", *pictures, class_="pictures", **attributes),
        element("figcaption", element("b", drawn.title + "."), " ", drawn.says),
        id=drawn.name,
        class_=drawn.layout,
    )


def page(title: str, lead: Sequence[Markup], sections: Sequence[Section]) -> str:
    """Return the whole page.

    Parameters
    ----------
    title : str
        The heading.
    lead : sequence of Markup
        What stands below it, above the table of contents.
    sections : sequence of Section
        In this order.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(VARIABLES + STYLE)),
    )
    body = element(
        "body",
        element("header", element("h1", title), *lead),
        _contents(sections),
        element("main", *map(_section, sections)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def data_uri(content: bytes) -> str:
    """Return a PNG file as the address of itself."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _long(text: str) -> dict[str, str]:
    """Return the class of a cell that may be broken into lines; others may not."""
    return {"class_": "long"} if len(text) > _SHORT_CELL else {}


def _whole(text: str) -> dict[str, str]:
    """Return the class of a fact that is a number: 1e-05 has a hyphen."""
    is_number = len(text) <= _SHORT_FACT and " " not in text
    return {"class_": "whole"} if is_number else {}


def _picture(name: str, picture: Picture) -> Markup:
    label = element("span", picture.label, class_="label") if picture.label else ""
    if isinstance(picture.content, str):
        return element("div", label, Markup(_inline(picture.content, name)))
    image = element("img", src=data_uri(picture.content), alt=picture.alt)
    return element("div", label, image)


def _inline(svg: str, name: str) -> str:
    """Return a picture whose names are its own in the page."""
    svg = re.sub(r'\bid="', f'id="{name}.', svg)
    svg = re.sub(r"url\(#", f"url(#{name}.", svg)
    return re.sub(r'href="#', f'href="#{name}.', svg)


def _contents(sections: Sequence[Section]) -> Markup:
    entries = [
        element(
            "li",
            element("a", section.title, href=f"#{section.name}"),
            class_="within" if section.within else "",
        )
        for section in sections
    ]
    listed = element("ul", *entries, class_="long" if len(entries) > 8 else "")
    return element("nav", element("h2", "Contents"), listed, aria_label="Contents")


def _section(section: Section) -> Markup:
    level = "h3" if section.within else "h2"
    parts = []
    for abreast, group in groupby(section.content, _is_chart):
        drawn = [figure(p) if isinstance(p, Figure) else p for p in group]
        parts += [element("div", *drawn, class_="grid")] if abreast else drawn
    return element("section", element(level, section.title), *parts, id=section.name)


def _is_chart(part: Part) -> bool:
    return isinstance(part, Figure) and part.layout == "chart"
