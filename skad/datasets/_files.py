"""What is missing in a folder, and which of its categories is meant."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence

PathLike = str | os.PathLike[str]


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
