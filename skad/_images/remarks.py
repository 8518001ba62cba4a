"""Remarks about files: made once, with the first file by name and the number of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skad._common.text import shortened
from skad.exceptions import ImageFileWarning

from .decode import Checked
from .notes import say

_Found = Sequence[tuple[str, Checked]]


def say_pages(found: _Found) -> None:
    """Warn about files with several pages.

    Parameters
    ----------
    found : sequence of (str, Checked)
        Names of images, and what checking them has found.
    """
    several = [(name, checked.n_pages) for name, checked in found if checked.n_pages > 1]
    if several:
        name, n_pages = several[0]
        say(
            "pages",
            f"files hold several pages, of which only the first is used: {name} with {n_pages}"
            f"{_and(several)}. Pass pages as images: [page.copy() for page in "
            "PIL.ImageSequence.Iterator(image)].",
            ImageFileWarning,
        )


def say_remarks(found: _Found) -> None:
    """Pass on what Pillow warns about.

    Parameters
    ----------
    found : sequence of (str, Checked)
        Names of images, and what checking them has found.
    """
    warned = [(name, checked.remarks[0]) for name, checked in found if checked.remarks]
    if warned:
        name, text = warned[0]
        say(
            "remarks",
            f"Pillow warns about {name}{_and(warned)}: {shortened(text)}",
            ImageFileWarning,
        )


def _and(found: Sequence[Any]) -> str:
    """Count the others."""
    n = len(found) - 1
    return f", and {n} other file{'s' * (n > 1)}" if n else ""
