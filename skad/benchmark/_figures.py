"""Rows behind the figures of the papers, which draw them without printing a number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from skad.benchmark._preset import Params, Preset

_NOTE = "the paper draws this row: no published figure can be read"
# The side of the image, and that before the centre crop, in the proportion of 224 to 256.
_SIZES = {288: 329, 360: 411, 448: 512}
_PATCH_SIZES = (3, 5, 7, 9)
_DEPTHS = ((1,), (2,), (3,), (1, 2), (1, 2, 3))
_METHODS = ("random", "greedy")
_FRACTIONS = (0.1, 0.01, 0.001)
_DIMENSIONS = (64, 128, 256, 512)

FIGURE_TABLES: dict[str, tuple[str, ...]] = {
    "patchcore-figure-s4": (
        "patchcore-1",
        *(f"patchcore-s{size}-p{p}" for size in _SIZES for p in _PATCH_SIZES),
    ),
    "patchcore-figure-s5": (
        *("patchcore-p1", "patchcore-1", "patchcore-p5", "patchcore-p7", "patchcore-p9"),
        *(f"patchcore-layers{''.join(map(str, layers))}" for layers in _DEPTHS),
    ),
    "patchcore-figure-s6": tuple(
        f"patchcore-{method}-{fraction:g}" for method in _METHODS for fraction in _FRACTIONS
    ),
    "reconpatch-figure-s2": (
        *(*(f"patchcore-d{d}" for d in _DIMENSIONS), "patchcore-1"),
        *("reconpatch-64", "reconpatch-128", "reconpatch-256", "reconpatch", "reconpatch-1024-1"),
    ),
}


def figure_rows(official: Params) -> dict[str, Preset]:
    """Make the rows that no table has.

    Parameters
    ----------
    official : mapping
        PatchCore as its official code computes it, with a bank of 1 %; a row changes some of it.

    Returns
    -------
    dict of str to Preset
    """
    return {
        name: Preset(f"PatchCore, {title}", "patchcore", {**official, **changes}, note=_NOTE)
        for name, title, changes in _changes()
    }


def _changes() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, title and changes of every row."""
    for size, resize in _SIZES.items():
        for p in _PATCH_SIZES:
            sizes = {"image_size": size, "resize": resize, "patch_size": p}
            yield f"patchcore-s{size}-p{p}", f"{size} px, p = {p}", sizes
    for p in (1, 5, 7, 9):
        yield f"patchcore-p{p}", f"p = {p}", {"patch_size": p}
    for layers in _DEPTHS:
        yield (
            f"patchcore-layers{''.join(map(str, layers))}",
            f"layers {', '.join(map(str, layers))}",
            {"layers": layers},
        )
    for method in _METHODS:
        for fraction in _FRACTIONS:
            yield (
                f"patchcore-{method}-{fraction:g}",
                f"{method} choice of {100 * fraction:g} %",
                {"coreset_method": method, "coreset_size": fraction},
            )
    # A bank as large as that behind ReConPatch's f.
    for d in _DIMENSIONS:
        yield f"patchcore-d{d}", f"{d} values per patch", {"target_dim": d}
