"""The page of a report: text and pictures in, one self-contained HTML file out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from skad._common.files import replacing
from skad.inspection._html import load_template


class Case(NamedTuple):
    """One image of a report."""

    picture: bytes
    """PNG: the image, its heat map, the outlines."""
    name: str
    verdict: str
    regions: list[str]
    """One text per region."""


class Section(NamedTuple):
    """A group of images."""

    title: str
    text: str
    cases: list[Case]


class Page(NamedTuple):
    """Content of a report; all texts are plain text."""

    title: str
    subtitle: str
    summary: list[tuple[str, str]]
    histogram: bytes
    scale: bytes
    has_truth: bool
    """Whether ground truth is outlined."""
    sections: list[Section]
    parameters: list[tuple[str, str]]
    versions: list[tuple[str, str]]


def write_page(page: Page, path: Path) -> None:
    """Write a page into a file, whole or not at all.

    The file has no script and no link; the pictures are inside. It is written piece by piece: beside
    the pictures of `page`, only one of them is in memory as HTML.

    Parameters
    ----------
    page : Page
    path : Path
        As for :func:`skad._common.files.replacing`.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with replacing(path) as unfinished:
        load_template("report.html").stream(page=page).dump(str(unfinished), encoding="utf-8")
