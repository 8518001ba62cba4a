"""HTML of a report: text and pictures in, one self-contained page out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from skad.inspection._drawing import as_img_tag, escape

# Nothing is loaded from anywhere: the browser itself is told so.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """\
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 66rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; }
p { margin: .4rem 0; max-width: 44rem; }
.note { color: #555; font-size: .9rem; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1.2rem .3rem 0;
         border-bottom: 1px solid #ddd; }
th { font-weight: normal; color: #555; }
.small { font-size: .85rem; }
img { display: block; width: 100%; height: auto; }
.plot { max-width: 40rem; }
.scale { max-width: 28rem; }
.cases { display: grid; gap: 1.4rem 1.2rem; margin: .8rem 0;
         grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; }
figcaption { font-size: .9rem; }
figcaption b { font-weight: 600; }
"""
_LEGEND = """\
Each picture: the image, its heat map, the image with outlines. Green: the outline of what lies above the
threshold on heat maps. {truth}Star: the most anomalous pixel. All heat maps share one scale:"""
_TRUTH = "Orange: ground truth. "


class Case(NamedTuple):
    """One image of a report."""

    picture: bytes
    """PNG: the image, its heat map, the outlines."""
    name: str
    verdict: str


class Section(NamedTuple):
    """A group of images."""

    title: str
    text: str
    cases: list[Case]


class Page(NamedTuple):
    """What a report says; plain text throughout."""

    title: str
    subtitle: str
    summary: list[tuple[str, str]]
    histogram: bytes
    scale: bytes
    has_truth: bool
    """Whether outlines of ground truth are drawn."""
    sections: list[Section]
    parameters: list[tuple[str, str]]
    versions: list[tuple[str, str]]


def write_html(page: Page) -> str:
    """Write a page; every text is escaped.

    Parameters
    ----------
    page : Page

    Returns
    -------
    str
        A whole HTML document: no script, no link, pictures inside.
    """
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(page.title)}</title>",
        f"<style>\n{_STYLE}</style></head><body>",
        f"<h1>{escape(page.title)}</h1>",
        f'<p class="note">{escape(page.subtitle)}</p>',
        "<h2>Summary</h2>",
        _table(page.summary),
        "<h2>Scores</h2>",
        f'<div class="plot">{as_img_tag(page.histogram, "Histogram of the image scores")}</div>',
        *_pictures(page),
        "<h2>Parameters</h2>",
        _table(page.parameters, "small"),
        "<h2>Versions</h2>",
        _table(page.versions, "small"),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _pictures(page: Page) -> Iterable[str]:
    for i, section in enumerate(page.sections):
        yield f"<h2>{escape(section.title)}</h2>"
        yield f"<p>{escape(section.text)}</p>"
        if i == 0:
            yield f'<p class="note">{_LEGEND.format(truth=_TRUTH if page.has_truth else "")}</p>'
            yield f'<div class="scale">{as_img_tag(page.scale, "Colour scale of the heat maps")}</div>'
        yield '<div class="cases">'
        for case in section.cases:
            picture = as_img_tag(case.picture, f"{case.name}: image, heat map, outlines")
            caption = f"<b>{escape(case.name)}</b><br>{escape(case.verdict)}"
            yield f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"
        yield "</div>"


def _table(rows: list[tuple[str, str]], kind: str = "") -> str:
    lines = [f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows]
    return f'<table class="{kind}">\n' + "\n".join(lines) + "\n</table>"
