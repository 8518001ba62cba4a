"""Looking around in folders for images; nothing is opened, and the standard library is enough."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def images(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """List the images of a folder by name; a folder that does not exist has none.

    Hidden files, pipes, devices and files with other suffixes are left out. Broken links are not, so
    that whoever reads them raises an error.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".")
            and suffix_of(entry.name) in suffixes
            and (entry.is_file() or not os.path.exists(entry.path))
        )
    return [folder / name for name in names]


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder by name, without hidden ones; one that does not exist has none."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    return [folder / name for name in names]


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case."""
    return os.path.splitext(name)[1].lower()
