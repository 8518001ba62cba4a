"""Images as a fitted detector opens them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from skad._base import BaseDetector
from skad._images import ImageSource, as_image_source
from skad._scoring.regions import Region


def open_images(detector: Any, X: Any) -> ImageSource:
    """Open images as a detector does, which knows the image shape of rows of a table.

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


def check_images(detector: Any, source: ImageSource) -> None:
    """Raise a ValueError unless the detector can score every image.

    Parameters
    ----------
    detector : fitted detector
    source : ImageSource
    """
    opener = _opener(detector)
    source.check(opener._smallest_side() if hasattr(opener, "_smallest_side") else 1)


def decode_once(detector: Any, X: Any) -> tuple[list[np.ndarray], Any]:
    """Decode images that are drawn and scored: decoding a large file takes as long as scoring it.

    Parameters
    ----------
    detector : fitted detector
    X : images

    Returns
    -------
    images : list of ndarray of shape (H_i, W_i, 3)
        To draw.
    X : images
        To score: the decoded images; rows of a table as they were passed.
    """
    source = open_images(detector, X)
    check_images(detector, source)
    images = [source.load(i) for i in range(len(source))]
    return images, X if hasattr(detector, "n_features_in_") else images


class Mapped(NamedTuple):
    """What a detector finds in images, from one pass over them."""

    heatmaps: Sequence[np.ndarray]
    scores: np.ndarray
    regions: list[list[Region] | None]
    """None for images of a detector that has heat maps only."""


def map_images(detector: Any, X: Any) -> Mapped:
    """Score images, and find their heat maps and regions.

    Parameters
    ----------
    detector : fitted detector
    X : images

    Returns
    -------
    Mapped
    """
    if not isinstance(detector, BaseDetector):
        heatmaps, scores = detector.predict_heatmap(X, return_scores=True)
        return Mapped(heatmaps, scores, [None] * len(scores))
    now = detector._as_fitted()
    found = [(image.heatmap(), -image.score, now._regions_of(image)) for image in now._iter_maps(X)]
    heatmaps, scores, regions = zip(*found, strict=True)
    return Mapped(heatmaps, np.array(scores), list(regions))


def _opener(detector: Any) -> Any:
    """Return what opens images: the first member of an ensemble, else the detector."""
    return getattr(detector, "estimators_", [detector])[0]
