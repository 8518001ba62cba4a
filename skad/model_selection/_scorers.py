"""Scorers for `scoring=`: of image scores, and of heat maps against masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from PIL import Image
from sklearn.metrics import make_scorer
from sklearn.utils.metadata_routing import MetadataRequest

from skad._common.labels import read_labels
from skad._common.numbers import marked
from skad._images import as_ndarray, column_values, is_encoded, one_call
from skad._sklearn_compat import _num_samples
from skad.datasets import read_mask
from skad.datasets._masks import marked_pixels
from skad.metrics import aupro, average_precision, discriminability, image_auroc, pixel_auroc
from skad.metrics._image_metrics import check_scores
from skad.model_selection._unwrap import unwrap_estimator

image_auroc_scorer = make_scorer(image_auroc, response_method="decision_function")
average_precision_scorer = make_scorer(average_precision, response_method="decision_function")


def _signed_discriminability(y: Any, scores: Any) -> float:
    """Compute d' below 0 where defective images look more normal: a search must not choose that."""
    y, scores = check_scores(y, scores)
    good, defective = scores[y == 1], scores[y == -1]
    return float(np.sign(good.mean() - defective.mean()) * discriminability(good, defective))


discriminability_scorer = make_scorer(_signed_discriminability, response_method="decision_function")


class HeatmapScorer:
    """Compares heat maps with masks; for ``scoring=`` of cross-validation and searches.

    Call it as ``scorer(detector, X, y, masks=masks)``, or pass it as ``scoring`` and the masks to
    ``fit`` of the search, after ``sklearn.set_config(enable_metadata_routing=True)``. The detector
    may be the last step of a Pipeline; masks belong to the images as that step sees them.

    Parameters
    ----------
    metric : callable
        Computes a number from masks and heat maps, such as :func:`skad.metrics.aupro`.
    name : str
        Shown by ``repr`` and in errors.

    Examples
    --------
    >>> import sklearn
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skad import PatchCoreDetector
    >>> from skad.model_selection import OneClassKFold, aupro_scorer
    >>> search = GridSearchCV(
    ...     PatchCoreDetector("skad_nano"), {"n_neighbors": [1, 3]},
    ...     scoring=aupro_scorer, cv=OneClassKFold(3),
    ... )
    >>> with sklearn.config_context(enable_metadata_routing=True):
    ...     search.fit(X, y, masks=masks)  # doctest: +SKIP
    """

    def __init__(self, metric: Callable[[Iterable, Iterable], float], name: str) -> None:
        self.metric, self.name = metric, name
        self._request = True

    def __repr__(self) -> str:
        return self.name

    @one_call()
    def __call__(self, estimator: Any, X: Any, y: Any = None, *, masks: Any = None) -> float:
        """Score a fitted detector.

        Parameters
        ----------
        estimator : detector or Pipeline
        X : images
            n images, in any form that the detector takes.
        y : array-like of shape (n,), default=None
            +1 good, -1 defective; images labelled -1 must have a mask.
        masks : sequence or column of n arrays (H_i, W_i), paths or None
            Non-zero = defective; None, NaN and the empty string: no pixel is (a good image).

        Returns
        -------
        float
            Higher = better.

        Raises
        ------
        ValueError
            If masks are missing, do not match the images, or a defective image has none.
        """
        if masks is None:
            raise ValueError(
                f"{self.name} needs masks=: one mask per image, None for good images. In a search: "
                "sklearn.set_config(enable_metadata_routing=True), then search.fit(X, y, masks=masks)."
            )
        masks, n = list_masks(masks), _num_samples(X)
        if len(masks) != n:
            raise ValueError(f"{len(masks)} masks for {n} images: there must be one per image.")
        if y is not None:
            defective = read_labels(y, n) == -1
            without = [i for i, mask in enumerate(masks) if mask is None and defective[i]]
            if without:
                raise ValueError(f"image {without[0]} is labelled -1 (defective) but has no mask.")
        heatmaps = list(_heatmaps(estimator, X))
        truth = [
            as_mask(mask, heatmap.shape, f"mask {i}")
            for i, (mask, heatmap) in enumerate(zip(masks, heatmaps, strict=True))
        ]
        return self.metric(truth, heatmaps)

    def set_score_request(self, *, masks: bool | str | None = True) -> HeatmapScorer:
        """Choose whether masks are requested when a search routes metadata.

        Parameters
        ----------
        masks : bool, str or None, default=True
            As in scikit-learn; a string is the name under which masks are passed.

        Returns
        -------
        HeatmapScorer
            A copy.
        """
        copy = HeatmapScorer(self.metric, self.name)
        copy._request = masks  # type: ignore[assignment]
        return copy

    def get_metadata_routing(self) -> MetadataRequest:
        """Return the metadata that is requested.

        Returns
        -------
        sklearn.utils.metadata_routing.MetadataRequest
        """
        request = MetadataRequest(owner=self)
        request.score.add_request(param="masks", alias=self._request)
        return request


pixel_auroc_scorer = HeatmapScorer(pixel_auroc, "pixel_auroc_scorer")
aupro_scorer = HeatmapScorer(aupro, "aupro_scorer")


def _heatmaps(estimator: Any, X: Any) -> Any:
    unwrapped = unwrap_estimator(estimator)
    return unwrapped.detector.predict_heatmap(unwrapped.images(X))


def as_mask(mask: Any, shape: tuple[int, ...], name: str = "a mask") -> np.ndarray:
    """Read a mask as bool; a missing one marks no pixel. `name` is for errors."""
    if is_missing(mask):
        return np.zeros(shape, dtype=bool)
    if isinstance(mask, str | os.PathLike):
        return read_mask(mask)
    if isinstance(mask, Image.Image) or is_encoded(mask):
        return marked_pixels(mask)
    return marked(as_ndarray(mask, name), name)


def list_masks(masks: Any) -> list[Any]:
    """List the masks of a list, an array or a column of a table; None where one is missing."""
    values = column_values(masks)
    return [None if is_missing(mask) else mask for mask in (masks if values is None else values)]


def is_missing(mask: Any) -> bool:
    """Whether a cell of a table says that there is no mask: None, NaN, pandas.NA or an empty string."""
    if mask is None or isinstance(mask, str):
        return not mask
    if isinstance(mask, float | np.floating):
        return bool(np.isnan(mask))
    # By name: pandas may not be installed.
    return type(mask).__name__ in ("NAType", "NaTType")
