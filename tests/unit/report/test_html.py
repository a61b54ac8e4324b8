"""The page: escaping, places, nothing that is loaded."""

import re

import numpy as np
import pytest

from mpilayer.report import html
from mpilayer.report.html import Figure, Picture, Section, element, page

EVIL = "<script>alert('1')</script>\"&"
SVG = '<svg role="img"><path id="a"/><use xlink:href="#a" clip-path="url(#a)"/></svg>'


def test_text_is_escaped_and_markup_is_not():
    assert element("p", "a < b") == "<p>a &lt; b</p>"
    assert element("p", "<", element("b", "x"), "&") == "<p>&lt;<b>x</b>&amp;</p>"
    assert element("p", title='"') == '<p title="&quot;"></p>'
    assert element("a", "x", class_="c", data_label="d") == (
        '<a class="c" data-label="d">x</a>'
    )
    assert element("br") == "<br>"


@pytest.mark.parametrize(
    "made",
    [
        element("p", EVIL, title=EVIL),
        html.table(EVIL, (EVIL, EVIL), [(EVIL, EVIL)]),
        html.facts({EVIL: EVIL}),
        html.figure(Figure("f", EVIL, EVIL, [Picture(b"png", EVIL, EVIL)])),
        page(EVIL, EVIL, [Section("s", EVIL, [element("p", EVIL)])]),
    ],
)
def test_nothing_foreign_becomes_markup(made):
    assert "<script" not in made
    assert "&lt;script&gt;" in made


def test_options_in_notes_are_not_broken():
    made = html.note("<Try> --code linear --learning-rate 1, not a--b.")
    assert made.count("<code>") == 2
    assert "&lt;Try&gt; <code>--code</code> linear <code>--learning-rate</code>" in made
    assert re.search(r"code\{[^}]*white-space:nowrap", html.STYLE)


def test_short_cells_and_numbers_stay_on_one_line():
    long = "a text of more than twenty characters"
    made = html.table("t", ("", "x"), [("a", "4 ranks × 1 thread")], [("b", long)])
    assert re.findall(r'<tr class="([^"]*)"', made) == ["", "apart"]
    assert re.findall('class="long">([^<]*)', made) == [long]
    made = html.facts({"x": "2.78e-05", "y": "4 ranks × 1 thread", "z": html.NOTHING})
    assert '<dd class="whole">2.78e-05' in made
    assert "<dd>4 ranks" in made
    assert "z" not in made  # nobody knows


def test_two_pictures_of_one_make_have_names_of_their_own():
    pictures = (Picture(SVG, "one"), Picture(SVG, "two"))
    made = html.figure(Figure("f", "t", "s", pictures))
    assert re.findall(r'id="([^"]*)"', made) == ["f", "f-1.a", "f-2.a"]
    assert re.findall(r'href="#([^"]*)"', made) == ["f-1.a", "f-2.a"]
    assert re.findall(r"url\(#([^)]*)\)", made) == ["f-1.a", "f-2.a"]


def test_contents_lead_to_all_sections_and_charts_stand_abreast():
    def drawn(name, layout):
        return Figure(name, "t", "s", (Picture(SVG, "alt"),), layout)

    parts = (drawn("a", "chart"), drawn("b", "chart"), drawn("c", "wide"))
    sections = [Section("one", "One", parts), Section("two", "Two", (), within=True)]
    made = page("t", "lead", sections)
    assert made.count('<div class="grid">') == 1
    assert '</figure></div><figure id="c"' in made
    assert re.findall(r'<a href="#(\w+)"', made) == ["one", "two"]
    for said in ("<h2>One</h2>", "<h3>Two</h3>", "default-src &#x27;none&#x27;"):
        assert said in made
    assert '<div class="grid"><figure id="a"' in made
    assert 'tabindex="0"' in made


def test_colours_follow_the_page():
    made = html.with_variables('fill:#0072b2;stroke:#123456;x="#1f2328"')
    assert made == 'fill:var(--c0,#0072b2);stroke:#123456;x="var(--ink,#1f2328)"'
    assert html.with_variables(html.colour("c0")) == html.colour("c0")


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("colours", [html.LIGHT, html.DARK])
@pytest.mark.parametrize("ground", ["paper", "card"])
def test_everything_can_be_read(colours, ground):
    for name in ("ink", "soft", *html.SERIES):
        pair = sorted((luminance(colours[name]), luminance(colours[ground])))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, name
