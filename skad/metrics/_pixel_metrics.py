"""Exact metrics of heat maps against masks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from skad.metrics._pairs import SeenPixels, iter_pixels
from skad.metrics._ranked_pixels import RankedPixels, check_limit

# Thresholds per image in the per-image variant of the per-region overlap.
_N_THRESHOLDS = 200


def pixel_auroc(masks: Iterable[np.ndarray | None], heatmaps: Iterable[np.ndarray]) -> float:
    """Probability that a defective pixel is more anomalous than a good one, ties counting half; exact.

    Parameters
    ----------
    masks : iterable of n arrays of shape (H_i, W_i) or None
        Ground truth; non-zero = defective. None: no pixel is (a good image).
    heatmaps : iterable of n arrays of shape (H_i, W_i)
        Anomaly of each pixel, as ``predict_heatmap`` gives it; higher = more anomalous. Pixels that
        are NaN (outside the crop) are left out.

    Returns
    -------
    float
        In 0..1; NaN if only good or only defective pixels are left.

    Raises
    ------
    ValueError
        If a mask and its heat map differ in shape, their numbers differ, or a mask holds anything but
        finite numbers and bool.

    See Also
    --------
    PixelCounts : For heat maps that do not fit into memory together.

    Examples
    --------
    >>> import numpy as np
    >>> from skad.metrics import pixel_auroc
    >>> pixel_auroc([np.array([[0, 1], [0, 1]])], [np.array([[0.1, 0.9], [0.4, 0.3]])])
    0.75
    """
    return _rank_exactly(masks, heatmaps).auroc()


def pixel_average_precision(
    masks: Iterable[np.ndarray | None], heatmaps: Iterable[np.ndarray]
) -> float:
    """Average precision of finding defective pixels; exact.

    Says more than :func:`pixel_auroc` where few pixels are defective.

    Parameters
    ----------
    masks, heatmaps : iterables
        As for :func:`pixel_auroc`.

    Returns
    -------
    float
        In 0..1; the fraction of defective pixels is what chance gives. NaN if only good or only
        defective pixels are left.

    Raises
    ------
    ValueError
        As :func:`pixel_auroc`.

    See Also
    --------
    PixelCounts : For heat maps that do not fit into memory together.

    Examples
    --------
    >>> import numpy as np
    >>> from skad.metrics import pixel_average_precision
    >>> mask, heatmap = np.array([[0, 1], [0, 1]]), np.array([[0.1, 0.9], [0.4, 0.3]])
    >>> pixel_average_precision([mask], [heatmap])
    0.8333333333333333
    """
    return _rank_exactly(masks, heatmaps).average_precision()


def aupro(
    masks: Iterable[np.ndarray | None], heatmaps: Iterable[np.ndarray], limit: float = 0.3
) -> float:
    """Area under the per-region overlap, up to a false-positive rate of `limit`; exact.

    A region is a connected part of a mask (8 neighbours), and every region counts the same whatever
    its size. The curve is the fraction of a region's pixels that are called defective, the mean of all
    regions, against the fraction of good pixels of all images that are called defective. It has one
    point for each distinct value of the heat maps and is linear in between.

    Parameters
    ----------
    masks : iterable of n arrays of shape (H_i, W_i) or None
        Ground truth; non-zero = defective. None: no pixel is (a good image).
    heatmaps : iterable of n arrays of shape (H_i, W_i)
        Anomaly of each pixel; higher = more anomalous. Pixels that are NaN are left out; a region
        counts by what is left of it.
    limit : float, default=0.3
        In (0, 1]; the area is divided by it.

    Returns
    -------
    float
        In 0..1; NaN if there is no region, or no good pixel.

    Raises
    ------
    ValueError
        As :func:`pixel_auroc`, and for another limit.

    See Also
    --------
    PixelCounts : For heat maps that do not fit into memory together.

    References
    ----------
    P. Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from skad.metrics import aupro
    >>> aupro([np.array([[0, 0, 1, 1]])], [np.array([[0.1, 0.5, 0.4, 0.9]])], limit=1.0)
    0.75
    """
    check_limit(limit)
    return _rank_exactly(masks, heatmaps).aupro(limit)


def aupro_per_image(
    masks: Iterable[np.ndarray | None], heatmaps: Iterable[np.ndarray], limit: float = 0.3
) -> float:
    """Per-region overlap as the code of RD4AD and ReContrast computes it; not :func:`aupro`.

    Every defective image has a curve of its own, over 200 thresholds between the extremes of its heat
    map. Points with a false-positive rate below `limit` are kept, their rates divided by the largest of
    them, the area taken without the origin, and the areas averaged. Published figures of ReContrast are
    these; they cannot be compared with others.

    Parameters
    ----------
    masks, heatmaps, limit
        As for :func:`aupro`.

    Returns
    -------
    float
        NaN if there is no defective image, or if there is one whose heat map is perfect (no kept point
        has a false positive).

    Raises
    ------
    ValueError
        As for :func:`aupro`.

    Examples
    --------
    >>> import numpy as np
    >>> from skad.metrics import aupro_per_image
    >>> mask = np.array([[0, 0, 0, 0, 1, 1]])
    >>> round(aupro_per_image([mask], [np.array([[0.0, 0.1, 0.6, 0.2, 0.5, 0.9]])]), 3)
    0.5
    """
    check_limit(limit)
    areas = [
        _area_of_image(pixels, limit) for pixels in iter_pixels(masks, heatmaps) if pixels.n_regions
    ]
    return float(np.mean(areas)) if areas else float("nan")


def _rank_exactly(
    masks: Iterable[np.ndarray | None], heatmaps: Iterable[np.ndarray]
) -> RankedPixels:
    """Count pixels in the fewest groups that lose nothing.

    A group holds the pixels of one value that defective pixels have, or the good pixels between two such
    values: these need no group for each value, since curves between two defective pixels are straight.
    """
    images = list(iter_pixels(masks, heatmaps))
    good = np.sort(np.concatenate([image.good for image in images]))
    fractions = np.concatenate([image.fractions for image in images])
    defective = np.concatenate([image.defective for image in images])
    values, owners = np.unique(defective, return_inverse=True)
    # Groups in rising order: gap, value, gap, value, ..., gap; and where in `good` they begin.
    starts = np.zeros(2 * len(values) + 1, dtype=np.int64)
    starts[1::2] = np.searchsorted(good, values, side="left")
    starts[2::2] = np.searchsorted(good, values, side="right")
    groups = 2 * owners + 1
    return RankedPixels(
        good=np.diff(starts, append=len(good))[::-1],
        defective=np.bincount(groups, minlength=len(starts))[::-1],
        overlap=np.bincount(groups, fractions, minlength=len(starts))[::-1],
        n_regions=sum(image.n_regions for image in images),
    )


def _rank_between(pixels: SeenPixels, thresholds: np.ndarray) -> RankedPixels:
    """Count the pixels of one image in the groups into which rising thresholds divide them."""
    n = len(thresholds) + 1
    good = np.searchsorted(thresholds, pixels.good, side="left")
    defective = np.searchsorted(thresholds, pixels.defective, side="left")
    return RankedPixels(
        good=np.bincount(good, minlength=n)[::-1],
        defective=np.bincount(defective, minlength=n)[::-1],
        overlap=np.bincount(defective, pixels.fractions, minlength=n)[::-1],
        n_regions=pixels.n_regions,
    )


def _area_of_image(pixels: SeenPixels, limit: float) -> float:
    values = np.concatenate([pixels.good, pixels.defective])
    low, high = values.min(), values.max()
    if low == high or not len(pixels.good):
        return float("nan")
    thresholds = np.arange(low, high, (high - low) / _N_THRESHOLDS)
    ranked = _rank_between(pixels, thresholds)
    # Without the first point, where nothing is called defective, and the last, where everything is.
    rates, overlaps = ranked.false_positive_rates()[1:-1], ranked.overlaps()[1:-1]
    kept = rates < limit
    if not rates[kept].any():
        return float("nan")
    rates, overlaps = rates[kept] / rates[kept].max(), overlaps[kept]
    return float(np.sum(np.diff(rates) * (overlaps[1:] + overlaps[:-1]) / 2))
