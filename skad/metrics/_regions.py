"""What regions find of defects: pixels, and defects as things."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import label

from skad._common.numbers import marked
from skad.metrics._pairs import EIGHT_NEIGHBOURS


class RegionReport(NamedTuple):
    """What regions find at one threshold. A fraction of nothing is NaN."""

    precision: float
    """Fraction of defective pixels among those in regions; 1 where there is no region."""
    recall: float
    """Fraction of the defective pixels that are in regions."""
    f1: float
    """Harmonic mean of precision and recall."""
    iou: float
    """Intersection over union: pixels that are both defective and in regions among those that are
    either."""
    overlap: float
    """Fraction of a defect's pixels that are in regions, the mean of all defects: the per-region
    overlap of MVTec AD's evaluation, at this threshold."""
    hit_rate: float
    """Fraction of the defects of which a pixel is in a region."""
    false_regions_per_good_image: float
    """Mean number of regions of images without a defect."""
    n_defects: int
    """Defects in all masks: pixels that touch, at a corner at least, are one."""
    n_regions: int
    """Regions in all images, counted in the same way."""
    n_false_regions: int
    """Regions without a defective pixel, in good and in defective images."""


def region_report(masks: Iterable[np.ndarray | None], regions: Iterable[Any]) -> RegionReport:
    """Compare regions with ground truth: pixel by pixel over all images, and defect by defect.

    Parameters
    ----------
    masks : iterable of n arrays of shape (H_i, W_i) or None
        Ground truth; non-zero = defective. None: no pixel is (a good image).
    regions : Regions, or iterable of n arrays of shape (H_i, W_i) or None
        What ``predict_regions`` returns, or masks of what was found; None: nothing was.

    Returns
    -------
    RegionReport

    Raises
    ------
    ValueError
        If the shapes of a pair or their numbers differ, if there is no pair, or for a mask that holds
        anything but finite numbers and bool.

    See Also
    --------
    pixel_auroc, aupro : Of heat maps, over all thresholds.

    Notes
    -----
    Pixels count alike, so large defects decide on precision, recall, F1 and IoU; defects count alike in
    `overlap` and `hit_rate`.

    Examples
    --------
    >>> import numpy as np
    >>> from skad.metrics import region_report
    >>> mask = np.array([[0, 1, 1, 0, 0, 1]])
    >>> found = np.array([[0, 0, 1, 1, 0, 0]])
    >>> report = region_report([mask, None], [found, None])
    >>> report.precision, round(report.recall, 2), report.overlap, report.hit_rate
    (0.5, 0.33, 0.25, 0.5)
    """
    images = [_compare(mask, found) for mask, found in _pairs(masks, regions)]
    if not images:
        raise ValueError("no masks and regions given.")
    shared = sum(image.shared for image in images)
    defective = sum(image.defective for image in images)
    found = sum(image.found for image in images)
    overlaps = np.concatenate([image.overlaps for image in images])
    good = [image for image in images if not image.defective]
    return RegionReport(
        precision=shared / found if found else 1.0,
        recall=_ratio(shared, defective),
        f1=_ratio(2 * shared, defective + found),
        iou=_ratio(shared, defective + found - shared),
        overlap=_ratio(float(overlaps.sum()), len(overlaps)),
        hit_rate=_ratio(int(np.count_nonzero(overlaps)), len(overlaps)),
        false_regions_per_good_image=_ratio(sum(image.n_regions for image in good), len(good)),
        n_defects=len(overlaps),
        n_regions=sum(image.n_regions for image in images),
        n_false_regions=sum(image.n_false for image in images),
    )


class _Compared(NamedTuple):
    """Counts of one image."""

    defective: int
    found: int
    shared: int
    overlaps: np.ndarray
    n_regions: int
    n_false: int


def _compare(mask: np.ndarray, found: np.ndarray) -> _Compared:
    both = mask & found
    defects, n_defects = label(mask, structure=EIGHT_NEIGHBOURS)
    regions, n_regions = label(found, structure=EIGHT_NEIGHBOURS)
    sizes = np.bincount(defects[mask], minlength=n_defects + 1)[1:]
    hit = np.bincount(defects[both], minlength=n_defects + 1)[1:]
    n_true = len(np.unique(regions[both]))
    return _Compared(
        int(mask.sum()),
        int(found.sum()),
        int(both.sum()),
        hit / sizes,
        n_regions,
        n_regions - n_true,
    )


def _pairs(masks: Any, regions: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Check masks and what was found, pair by pair."""
    if hasattr(regions, "shapes"):  # Regions, which has no mask until it is asked for one
        regions = map(regions.mask, range(len(regions)))
    for i, (mask, found) in enumerate(zip(masks, regions, strict=True)):
        named = (mask, f"mask {i}"), (found, f"regions of image {i}")
        given = [marked(pixels, name) for pixels, name in named if pixels is not None]
        nothing = np.zeros(given[0].shape if given else (1, 1), dtype=bool)
        truth = nothing if mask is None else given[0]
        called = nothing if found is None else given[-1]
        if truth.shape != called.shape or truth.ndim != 2:
            raise ValueError(
                f"mask {i} has shape {truth.shape}, the regions of its image {called.shape}: both must "
                "be (H, W), one pair per image. A single pair is passed as [mask], [regions]."
            )
        yield truth, called


def _ratio(part: float, whole: int) -> float:
    return float(part) / whole if whole else float("nan")
