"""What displays and reports check before they draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skad._images import ImageSource, as_image_source


def image_source(detector: Any, X: Any) -> ImageSource:
    """Open images as a detector opens them: it knows the shape of images that are rows of a table.

    Parameters
    ----------
    detector : fitted detector
    X : images

    Returns
    -------
    ImageSource
    """
    opener = _opener(detector)
    return opener._open(X, reset=False) if hasattr(opener, "_open") else as_image_source(X)


def _opener(detector: Any) -> Any:
    return getattr(detector, "estimators_", [detector])[0]


def decode_once(detector: Any, X: Any) -> tuple[list[np.ndarray], Any]:
    """Decode images to be drawn, and hand them on: to decode a large file takes as long as to score it.

    Parameters
    ----------
    detector : fitted detector
    X : images

    Returns
    -------
    images : list of ndarray of shape (H_i, W_i, 3)
    X : images
        For the detector, with the same scores; rows of a table as they are.
    """
    source = image_source(detector, X)
    opener = _opener(detector)
    source.check(opener._smallest_side() if hasattr(opener, "_smallest_side") else 1)
    images = [source.load(i) for i in range(len(source))]
    return images, X if hasattr(detector, "n_features_in_") else images


def check_number(name: str, items: Sequence[Any] | np.ndarray, n: int) -> None:
    """Raise a ValueError unless there is one item an image.

    Parameters
    ----------
    name : str
        Of the items, in the plural.
    items : sequence
    n : int
        Number of images.
    """
    if len(items) != n:
        raise ValueError(f"{len(items)} {name} for {n} images: there must be one an image.")


def check_heatmap(i: int, heatmap: np.ndarray, mask: np.ndarray | None) -> None:
    """Raise a ValueError unless a heat map can be drawn and compared with its mask.

    Parameters
    ----------
    i : int
        Number of the image, for the message.
    heatmap : ndarray
    mask : ndarray or None
    """
    if heatmap.ndim != 2:
        raise ValueError(
            f"heat map {i} must be of shape (H, W), one per image; it has {heatmap.shape}. A single one "
            "is passed as [heatmap], its mask as [mask]."
        )
    if np.isnan(heatmap).all():
        raise ValueError(f"heat map {i} must hold more than NaN.")
    if mask is not None and mask.shape != heatmap.shape:
        raise ValueError(
            f"mask {i} has shape {mask.shape}, its heat map {heatmap.shape}: a mask must be as large "
            "as its image."
        )
