"""Looking around in folders: images, subfolders, missing files, categories."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

PathLike = str | os.PathLike[str]
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


def check_none_missing(missing: Sequence[str], n: int, where: str) -> None:
    """Raise FileNotFoundError if files are missing; `n` were looked for, and `where` lists them."""
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise FileNotFoundError(
            f"{where}: {len(missing)} of {n} files are missing: {shown}. Unpack the archive again; an "
            "incomplete data set gives other results than the whole."
        )


def choose(category: str | None, found: Sequence[str], path: PathLike) -> str:
    """Return the category that is meant; None stands for the only one of those found in `path`."""
    listed = ", ".join(found)
    if category is None:
        if len(found) == 1:
            return found[0]
        raise ValueError(
            f"{os.fspath(path)!r} has {len(found)} categories ({listed}): pass one of them, as in "
            f"category={found[0]!r}."
        )
    if category not in found:
        near = difflib.get_close_matches(str(category), found, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"no category {category!r} in {os.fspath(path)!r}.{hint} The categories are {listed}."
        )
    return category
