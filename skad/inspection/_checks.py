"""Checks of what belongs to images: heat maps, masks, titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def check_number(name: str, items: Sequence[Any] | np.ndarray, n: int) -> None:
    """Raise a ValueError unless there is one item per image.

    Parameters
    ----------
    name : str
        Of the items, in the plural.
    items : sequence
    n : int
        Number of images.
    """
    if len(items) != n:
        raise ValueError(f"{len(items)} {name} for {n} images: pass exactly one per image.")


def check_heatmap(i: int, heatmap: np.ndarray, mask: np.ndarray | None) -> None:
    """Raise a ValueError unless a heat map can be drawn and compared with its mask.

    Parameters
    ----------
    i : int
        Index of the image, for the message.
    heatmap : ndarray
    mask : ndarray or None
    """
    if heatmap.ndim != 2:
        raise ValueError(
            f"heat map {i} has shape {heatmap.shape} and must have shape (H, W): pass one heat map per "
            "image; a single one as [heatmap], its mask as [mask]."
        )
    if np.isnan(heatmap).all():
        raise ValueError(f"heat map {i} holds only NaN: leave its image out.")
    if mask is not None and mask.shape != heatmap.shape:
        raise ValueError(
            f"mask {i} has shape {mask.shape}, its heat map {heatmap.shape}: a mask must have the size "
            "of its image. Resize it, with nearest-neighbour interpolation."
        )
