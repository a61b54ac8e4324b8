"""The look of the page: its style sheet, and colours that the colour-blind tell apart.

Colours are CSS variables, so that a picture follows the page. The hues are those of
Okabe and Ito (2008), darker on light paper and lighter on dark paper. Nothing is told
by colour alone: lines differ in dashes and markers, bars in pattern and height, too.
"""

import re

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


STYLE = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0 auto;padding:1.5rem clamp(1rem,4vw,3rem) 4rem;max-width:1180px;
 background:var(--paper);color:var(--ink);overflow-wrap:anywhere;
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
header{border-bottom:3px solid var(--c0);padding-bottom:.75rem}
h1{font-size:clamp(1.5rem,4vw,2.1rem);line-height:1.2;margin:.3rem 0 .4rem}
h2{font-size:1.45rem;line-height:1.25;margin:2.8rem 0 .8rem;padding-top:.6rem;
 border-top:1px solid var(--rule)}
h3{font-size:1.15rem;margin:2rem 0 .6rem}
p{margin:.5rem 0;max-width:75ch}
a{color:var(--c0)}
header p,.note,figcaption,.caption{color:var(--soft)}
nav{margin:1rem 0;padding:.4rem 1.1rem 1rem;background:var(--card);
 border:1px solid var(--rule);border-radius:10px}
nav h2{font-size:1rem;margin:.5rem 0;padding:0;border:0}
nav ul{list-style:none;margin:0;padding:0}
nav .long{columns:18rem;column-gap:2rem}
nav li{margin:.15rem 0;break-inside:avoid}
nav .within{padding-left:1.2rem}
section{display:flow-root}
.note{border-left:4px solid var(--c4);padding:.3rem .8rem;background:var(--card);
 border-radius:0 6px 6px 0}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem;
 margin:.9rem 0}
.facts div{background:var(--card);border:1px solid var(--rule);border-radius:10px;
 padding:.55rem .8rem}
dt{font-size:.8rem;color:var(--soft);line-height:1.3}
dd{margin:.15rem 0 0;font-size:1.25rem;font-weight:600;line-height:1.25;
 font-variant-numeric:tabular-nums}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));
 gap:1.2rem}
figure{margin:1.2rem 0;padding:1rem;background:var(--card);border:1px solid var(--rule);
 border-radius:10px;min-width:0}
.grid>figure{margin:0}
.grid>figure:only-child{max-width:36rem}
figcaption{font-size:.9rem;line-height:1.5;margin-top:.6rem}
figcaption b{color:var(--ink)}
figure svg{display:block;width:100%;height:auto}
.chart .pictures{max-width:34rem;margin:0 auto}
.wide .pictures,.scroll{overflow-x:auto}
/* What scrolls says so: an animation of scrolling runs only where there is some. */
.wide .pictures::before,.scroll::before{content:"↔ Scroll sideways.";display:block;
 position:sticky;left:0;width:max-content;color:var(--ink);line-height:1.5;
 font-size:.85rem}
@supports (animation-timeline:scroll()){
 .wide .pictures::before,.scroll::before{font-size:0;animation:hint linear;
  animation-timeline:scroll(nearest inline)}
 @keyframes hint{from,to{font-size:.85rem}}}
@supports not (animation-timeline:scroll()){@media (min-width:51rem){
 .wide .pictures::before,.scroll::before{content:none}}}
.wide svg{min-width:720px}
.tiles .pictures{display:grid;gap:1rem;align-items:end;
 grid-template-columns:repeat(auto-fit,minmax(min(100%,9.5rem),1fr))}
.tiles .pictures>div{max-width:16.5rem}
figure img{display:block;width:100%;image-rendering:pixelated;border-radius:4px}
.label{display:block;white-space:pre-line;font-size:.85rem;font-weight:600;margin-bottom:.25rem}
.caption{font-size:.9rem;margin:1.3rem 0 0}
.scroll{margin:.4rem 0 1.3rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.93rem}
th,td{padding:.3rem .75rem;border-bottom:1px solid var(--rule);text-align:right;
 vertical-align:top;overflow-wrap:normal}
td{white-space:nowrap}
td.long{white-space:normal;min-width:9rem}
code{white-space:nowrap;font:.9em ui-monospace,Menlo,Consolas,monospace}
dd.whole{white-space:nowrap}
th:first-child{text-align:left;padding-left:.2rem}
thead th{border-bottom:2px solid var(--soft);font-size:.86rem;white-space:nowrap}
tbody th{font-weight:500;min-width:7rem}
.apart th,.apart td{color:var(--soft);font-style:italic}
.words td,.words th{text-align:left}
.words table{width:100%}
.confusion tbody th{min-width:5.2rem}
.confusion td{text-align:center;min-width:2.6rem}
.confusion .right{font-weight:700;outline:1px solid var(--soft);outline-offset:-2px}
details{margin:.6rem 0;border:1px solid var(--rule);border-radius:8px;
 padding:.4rem .8rem;background:var(--card)}
summary{cursor:pointer;font-weight:600}
pre{overflow-x:auto;font:.85rem/1.45 ui-monospace,Menlo,Consolas,monospace;
 white-space:pre-wrap}
@media (max-width:30rem){figure{padding:.7rem .6rem}dd{font-size:1.1rem}
 .tiles .pictures{grid-template-columns:1fr 1fr}}
@media screen and (max-width:44rem){.words thead{display:none}
 .words tr,.words td,.words th{display:block;border:0;padding:.1rem 0}
 .words table{display:block}.words tbody{display:block}
 .words tr{border-bottom:1px solid var(--rule);padding:.5rem 0}
 .words td::before{content:attr(data-label);color:var(--soft);font-size:.85rem;
 margin-right:.5rem}}
@media print{body{max-width:none;padding:0;font-size:10.5pt}
 figure,table,.table,p,.facts div{break-inside:avoid}
 h2,h3,h2+p,h3+p,.facts,summary{break-after:avoid}
 .grid{grid-template-columns:1fr 1fr}table{font-size:8.5pt}th,td{padding:.2rem .45rem}
 .wide svg{min-width:0}.wide .pictures,.scroll{overflow:visible}
 .wide .pictures::before,.scroll::before{content:none}
 td{white-space:normal}
 details::details-content{content-visibility:visible;height:auto}
 nav{break-inside:avoid}}
"""
