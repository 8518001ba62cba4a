"""The fitted detector inside what the user holds, and its answers portion by portion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted, column_or_1d

from skad._images import ImageSource, as_image_source

# Images whose heat maps are in memory together, where all of a long list are looked at.
_PORTION = 16


class Route(NamedTuple):
    """A detector, and the steps that images pass before they reach it."""

    detector: Any
    steps: tuple[Any, ...] = ()

    def images(self, X: Any) -> Any:
        """Return X as the detector sees it."""
        for step in self.steps:
            X = step.transform(X)
        return X

    def portions(self, X: Any, n: int) -> Iterator[tuple[slice, Any]]:
        """Yield places in X, and X there as the detector sees it, a few images at a time."""
        for start in range(0, n, _PORTION):
            rows = slice(start, min(start + _PORTION, n))
            yield rows, self.images(_safe_indexing(X, rows))


def route_to_detector(estimator: Any, needs: str = "predict_heatmap") -> Route:
    """Find the detector in a Pipeline or a search.

    Parameters
    ----------
    estimator : detector, Pipeline or search
        Fitted. A Pipeline ends with a detector; of a search its ``best_estimator_`` is taken.
    needs : str, default="predict_heatmap"
        A method that the detector must have.

    Returns
    -------
    Route

    Raises
    ------
    NotFittedError
    TypeError
        If the last step has no such method.
    """
    if isinstance(estimator, Pipeline):
        route = route_to_detector(estimator[-1], needs)
        before = estimator[:-1]
        return Route(route.detector, (before, *route.steps) if before.steps else route.steps)
    if hasattr(estimator, "best_estimator_"):
        return route_to_detector(estimator.best_estimator_, needs)
    if hasattr(estimator, needs):
        # Some of skad's detectors keep what an earlier fit learned after one that failed.
        check = getattr(estimator, "_check_unchanged", None)
        check_is_fitted(estimator) if check is None else check()
        return Route(estimator)
    if hasattr(estimator, "estimator"):
        check_is_fitted(estimator)
    raise TypeError(
        f"{type(estimator).__name__} has no method {needs!r}: pass a fitted detector of skad, or a "
        "Pipeline that ends with one."
    )


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
    members = getattr(detector, "estimators_", None)
    opener = detector if members is None else members[0]
    return opener._open(X, reset=False) if hasattr(opener, "_open") else as_image_source(X)


def check_labels(y: Any, n: int) -> np.ndarray:
    """Check labels of n images.

    Parameters
    ----------
    y : array-like of shape (n,)
    n : int

    Returns
    -------
    ndarray of shape (n,)
        +1 good, -1 defective.

    Raises
    ------
    ValueError
        For another number of labels, or other labels.
    """
    labels = column_or_1d(y)
    if len(labels) != n:
        raise ValueError(f"y has {len(labels)} labels for {n} images.")
    found = np.unique(labels.astype(str) if labels.dtype == object else labels).tolist()
    if labels.dtype == bool or not set(found) <= {1, -1}:
        raise ValueError(
            f"y holds {found[:5]}: labels must be +1 (good) and -1 (defective). For 1 = defective "
            "pass np.where(y == 1, -1, 1)."
        )
    return labels


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
    if heatmap.ndim != 2 or np.isnan(heatmap).all():
        raise ValueError(f"heat map {i} must be of shape (H, W) and hold more than NaN.")
    if mask is not None and mask.shape != heatmap.shape:
        raise ValueError(
            f"mask {i} has shape {mask.shape}, its heat map {heatmap.shape}: a mask must be as large "
            "as its image."
        )
