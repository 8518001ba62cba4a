"""What regions find of defects: pixels, and defects as things."""

from __future__ import annotations

import itertools
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
    """Regions in all images: those of ``Regions``; in masks, pixels that touch are one."""
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
    images = [_compare(mask, numbers) for mask, numbers in _pairs(masks, regions)]
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


def _compare(mask: np.ndarray, regions: np.ndarray) -> _Compared:
    found = regions > 0
    both = mask & found
    defects, n_defects = label(mask, structure=EIGHT_NEIGHBOURS)
    sizes = np.bincount(defects[mask], minlength=n_defects + 1)[1:]
    hit = np.bincount(defects[both], minlength=n_defects + 1)[1:]
    n_regions, n_true = (len(np.unique(regions[where])) for where in (found, both))
    return _Compared(
        int(mask.sum()),
        int(found.sum()),
        int(both.sum()),
        hit / sizes,
        n_regions,
        n_regions - n_true,
    )


def _pairs(masks: Any, regions: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Check pair by pair; yield which pixels are defective, and the numbers of regions."""
    if hasattr(regions, "labels"):  # Regions, which makes no array until it is asked for one
        numbered = map(regions.labels, range(len(regions)))
    else:
        numbered = map(_numbered, itertools.count(), regions)
    for i, (mask, found) in enumerate(zip(masks, numbered, strict=True)):
        truth = None if mask is None else marked(mask, f"mask {i}")
        if truth is None and found is None:
            truth, found = np.zeros((1, 1), bool), np.zeros((1, 1), int)
        elif truth is None:
            truth = np.zeros(found.shape, bool)
        elif found is None:
            found = np.zeros(truth.shape, int)
        if truth.shape != found.shape or truth.ndim != 2:
            raise ValueError(
                f"mask {i} has shape {truth.shape}, the regions of its image {found.shape}: both must "
                "be (H, W), one pair per image. A single pair is passed as [mask], [regions]."
            )
        yield truth, found


def _numbered(i: int, found: Any) -> Any:
    """Give each region of a mask a number; None where nothing was found."""
    if found is None:
        return None
    called = marked(found, f"regions of image {i}")
    return label(called, structure=np.ones((3,) * called.ndim))[0]


def _ratio(part: float, whole: int) -> float:
    return float(part) / whole if whole else float("nan")
