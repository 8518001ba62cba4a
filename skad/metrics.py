"""Metrics of anomaly detection: arrays in, floats out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.utils.validation import column_or_1d

from skad._validation.labels import read_both_labels
from skad._validation.numbers import marked, refuse_masked

# Pixels that touch at a corner belong to one region, as in the MVTec reference.
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)
# Thresholds an image in the per-image variant of the per-region overlap.
_N_THRESHOLDS = 200


def image_auroc(y: np.ndarray, scores: np.ndarray) -> float:
    """Chance that a good image scores higher than a defective one, ties counting half.

    Parameters
    ----------
    y : array-like of shape (n,)
        +1 good, -1 defective, both present.
    scores : array-like of shape (n,)
        ``score_samples`` or ``decision_function``; higher = more normal.

    Returns
    -------
    float
        In 0..1.

    Raises
    ------
    ValueError
        For other labels, NaN, or different lengths.

    Examples
    --------
    >>> image_auroc([1, 1, -1], [0.3, 0.1, 0.2])
    0.5
    """
    y, scores = _checked(y, scores)
    return float(roc_auc_score(y, scores))


def average_precision(y: np.ndarray, scores: np.ndarray) -> float:
    """Average precision of finding defects: precision at each defect found, averaged.

    scikit-learn's own ``scoring="average_precision"`` takes +1 for what is to be found, which are the
    good images here.

    Parameters
    ----------
    y, scores : array-like of shape (n,)
        As for :func:`image_auroc`.

    Returns
    -------
    float
        In 0..1; the share of defective images is what chance gives.

    Raises
    ------
    ValueError
        As :func:`image_auroc`.

    Examples
    --------
    >>> average_precision([1, 1, -1, -1], [0.4, 0.2, 0.3, 0.1])
    0.8333333333333333
    """
    y, scores = _checked(y, scores)
    return float(average_precision_score(y == -1, -scores))


def pixel_auroc(masks: Iterable[np.ndarray], heatmaps: Iterable[np.ndarray]) -> float:
    """Chance that a defective pixel is called more anomalous than a good one, ties counting half.

    Parameters
    ----------
    masks : iterable of n arrays of shape (H_i, W_i)
        Ground truth; non-zero = defective. Good images have an all-zero mask.
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

    Examples
    --------
    >>> import numpy as np
    >>> pixel_auroc([np.array([[0, 1], [0, 1]])], [np.array([[0.1, 0.9], [0.4, 0.3]])])
    0.75
    """
    good, defective = [], []
    for mask, heatmap in _pairs(masks, heatmaps):
        seen = ~np.isnan(heatmap)
        good.append(heatmap[seen & ~mask])
        defective.append(heatmap[seen & mask])
    return _auroc(np.concatenate(good), np.concatenate(defective))


def aupro(masks: Iterable[np.ndarray], heatmaps: Iterable[np.ndarray], limit: float = 0.3) -> float:
    """Area under the per-region overlap, up to a false-positive rate of `limit`; exact.

    A region is a connected part of a mask (8 neighbours), and every region counts the same whatever
    its size. The curve is the mean share of the regions' pixels that are found against the share of
    good pixels of all images that are called defective, one point for each distinct value of the heat
    maps, straight in between.

    Parameters
    ----------
    masks : iterable of n arrays of shape (H_i, W_i)
        Ground truth; non-zero = defective. Good images have an all-zero mask.
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

    Notes
    -----
    Being a mean over regions of areas under curves with straight pieces, the area is a mean over
    defective pixels of what each adds to it: one search among the sorted good pixels, whose number
    decides time and memory.

    References
    ----------
    P. Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> aupro([np.array([[0, 0, 1, 1]])], [np.array([[0.1, 0.5, 0.4, 0.9]])], limit=1.0)
    0.75
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit={limit!r} must lie in (0, 1].")
    good, regions = [], []
    for mask, heatmap in _pairs(masks, heatmaps):
        good.append(heatmap[~mask & ~np.isnan(heatmap)])
        regions += _regions(mask, heatmap)
    background = np.sort(np.concatenate(good))
    if not regions or not len(background):
        return float("nan")
    return float(np.mean([_area(region, background, limit).mean() for region in regions]) / limit)


def aupro_per_image(
    masks: Iterable[np.ndarray], heatmaps: Iterable[np.ndarray], limit: float = 0.3
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
        NaN if there is no defective image, or for one whose map is perfect (no kept point has a false
        positive).

    Raises
    ------
    ValueError
        As for :func:`aupro`.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.array([[0, 0, 0, 0, 1, 1]])
    >>> round(aupro_per_image([mask], [np.array([[0.0, 0.1, 0.6, 0.2, 0.5, 0.9]])]), 3)
    0.5
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit={limit!r} must lie in (0, 1].")
    areas = [
        _area_of_image(mask, heatmap, limit)
        for mask, heatmap in _pairs(masks, heatmaps)
        if mask.any()
    ]
    return float(np.mean(areas)) if areas else float("nan")


class ThresholdReport(NamedTuple):
    """A threshold on ``score_samples``, and what it gives on labelled images."""

    threshold: float
    """On ``score_samples``: images below it are called defective."""
    f1: float
    """F1 of finding defects."""
    accuracy: float
    """Share of images called rightly."""
    false_alarm_rate: float
    """Share of good images called defective."""
    recall: float
    """Share of defective images called defective."""
    false_positives: int
    """Good images called defective."""
    false_negatives: int
    """Defective images called good."""


def threshold_report(y: np.ndarray, scores: np.ndarray, threshold: float) -> ThresholdReport:
    """Count what a threshold finds and what it calls defective by mistake.

    Parameters
    ----------
    y, scores : array-like of shape (n,)
        As for :func:`image_auroc`, with ``score_samples``.
    threshold : float
        Images that score below it are called defective, those at it good: ``det.offset_`` gives the
        counts of ``predict``.

    Returns
    -------
    ThresholdReport

    Raises
    ------
    TypeError
        If `threshold` is not a number.
    ValueError
        As :func:`image_auroc`, or if `threshold` is NaN.

    Examples
    --------
    >>> report = threshold_report([1, 1, 1, 1, -1, -1], [4.0, 3.0, 2.0, 5.0, 1.0, 2.5], 2.0)
    >>> report.false_alarm_rate, report.recall, report.false_negatives
    (0.0, 0.5, 1)
    """
    y, scores = _checked(y, scores)
    threshold = _checked_threshold(threshold)
    called, defective = scores < threshold, y == -1
    found, alarms = int((called & defective).sum()), int((called & ~defective).sum())
    missed = int(defective.sum()) - found
    return ThresholdReport(
        threshold=threshold,
        f1=2 * found / (2 * found + alarms + missed),
        accuracy=1 - (alarms + missed) / len(y),
        false_alarm_rate=alarms / int((~defective).sum()),
        recall=found / (found + missed),
        false_positives=alarms,
        false_negatives=missed,
    )


def f1_optimal_threshold(y: np.ndarray, scores: np.ndarray) -> ThresholdReport:
    """Find the threshold with the best F1 of finding defects, for comparison with papers.

    It has seen the test labels: a line has no such threshold, and ``offset_`` comes from good images
    alone.

    Parameters
    ----------
    y, scores : array-like of shape (n,)
        As for :func:`image_auroc`, with ``score_samples``.

    Returns
    -------
    ThresholdReport
        Of several equally good thresholds, one that calls most images defective; it lies in the middle
        between two scores.

    Raises
    ------
    ValueError
        As :func:`image_auroc`.

    Examples
    --------
    >>> best = f1_optimal_threshold([1, 1, 1, -1, -1], [-0.1, -0.2, -0.6, -0.5, -0.9])
    >>> round(best.f1, 2), best.threshold, best.false_positives
    (0.8, -0.35, 1)
    """
    y, scores = _checked(y, scores)
    levels = np.unique(scores)[::-1]
    found = np.searchsorted(np.sort(scores[y == -1]), levels, side="right")
    alarms = np.searchsorted(np.sort(scores[y == 1]), levels, side="right")
    f1 = 2 * found / (found + alarms + np.sum(y == -1))
    return threshold_report(y, scores, _just_above(levels[f1.argmax()], levels))


def threshold_at_full_recall(y: np.ndarray, scores: np.ndarray) -> ThresholdReport:
    """Find the lowest threshold that lets no defective image pass, with the false alarms it costs.

    Like :func:`f1_optimal_threshold` it has seen the test labels, and lies between two scores.

    Parameters
    ----------
    y, scores : array-like of shape (n,)
        As for :func:`image_auroc`, with ``score_samples``.

    Returns
    -------
    ThresholdReport

    Raises
    ------
    ValueError
        As :func:`image_auroc`.

    Examples
    --------
    >>> threshold_at_full_recall([1, 1, 1, -1, -1], [3.0, 2.0, 4.0, 2.5, 1.0]).false_positives
    1
    """
    y, scores = _checked(y, scores)
    return threshold_report(y, scores, _just_above(scores[y == -1].max(), scores))


def discriminability(good: np.ndarray, defective: np.ndarray) -> float:
    """Discriminability index d': distance of two means in pooled standard deviations.

    Parameters
    ----------
    good, defective : array-like of shape (n_good,), (n_defective,)
        Scores of good and of defective images.

    Returns
    -------
    float
        At least 0: ``|mean difference|`` / sqrt of the mean of both variances (population variances).
        Infinite if both spreads are zero and the means differ, NaN if they do not.

    Raises
    ------
    ValueError
        If one of them is empty.

    References
    ----------
    Simpson and Fitter, "What is the best index of detectability?", Psychological Bulletin 1973;
    Eq. 12 of ReConPatch.

    Examples
    --------
    >>> discriminability([1.0, 3.0], [6.0, 8.0])
    5.0
    """
    refuse_masked(good, "scores of good images")
    refuse_masked(defective, "scores of defective images")
    good, defective = np.asarray(good, dtype=float), np.asarray(defective, dtype=float)
    if good.size == 0 or defective.size == 0:
        raise ValueError("d' needs scores of good and of defective images; one of them is empty.")
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt((good.var() + defective.var()) / 2)
        return float(np.abs(good.mean() - defective.mean()) / spread)


def _checked(y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    refuse_masked(scores, "scores")
    scores = column_or_1d(scores, dtype=np.float64)
    y = read_both_labels(y, len(scores))
    if np.isnan(scores).any():
        raise ValueError(f"scores holds NaN, first at {int(np.isnan(scores).argmax())}.")
    return y, scores


def _checked_threshold(threshold: float) -> float:
    given = np.asarray(threshold)
    if given.ndim or given.dtype.kind not in "iuf":
        raise TypeError(
            f"threshold must be a number, such as det.offset_; got {type(threshold).__name__}."
        )
    if np.isnan(given):
        raise ValueError("threshold is NaN: no score is below it, or above.")
    return float(given)


def _just_above(level: float, scores: np.ndarray) -> float:
    """Threshold that calls defective what scores at `level` or lower, and nothing else.

    Halfway to the next score, so that rounding on another processor changes no verdict.
    """
    higher = scores[scores > level]
    if not len(higher):
        return float(np.nextafter(level, np.inf))
    following = higher.min()
    middle = level / 2 + following / 2
    # Neighbouring floats have no number between them.
    return float(middle if level < middle <= following else following)


def _pairs(
    masks: Iterable[np.ndarray], heatmaps: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Masks as booleans and their heat maps, checked."""
    i = -1
    for i, (given, heatmap) in enumerate(zip(masks, heatmaps, strict=True)):
        refuse_masked(heatmap, f"heat map {i}")
        mask, heatmap = marked(given, f"mask {i}"), np.asarray(heatmap)
        if mask.shape != heatmap.shape or mask.ndim != 2:
            raise ValueError(
                f"mask {i} has shape {mask.shape}, its heat map {heatmap.shape}: both must be (H, W), "
                "one pair per image. A single pair is passed as [mask], [heatmap]."
            )
        yield mask, heatmap
    if i < 0:
        raise ValueError("no masks and heat maps given.")


def _regions(mask: np.ndarray, heatmap: np.ndarray) -> list[np.ndarray]:
    """Values of the heat map in each connected part of a mask; NaN left out."""
    if not mask.any():
        return []
    numbers, n = label(mask, structure=_EIGHT_NEIGHBOURS)
    inside = mask & ~np.isnan(heatmap)
    values, owners = heatmap[inside], numbers[inside]
    order = np.argsort(owners, kind="stable")
    ends = np.searchsorted(owners[order], np.arange(1, n + 1), side="right")
    return [region for region in np.split(values[order], ends[:-1]) if len(region)]


def _area(region: np.ndarray, background: np.ndarray, limit: float) -> np.ndarray:
    """Find what each pixel of a region adds to the area under its curve, up to `limit`.

    A pixel counts from the rate at which it is found. Where good pixels tie with it, it is found
    little by little: a ramp between the rates before and after the tie.
    """
    n = len(background)
    before = 1 - np.searchsorted(background, region, side="right") / n
    after = 1 - np.searchsorted(background, region, side="left") / n
    ramp = after - before
    within = np.clip(limit - before, 0, ramp)
    on_ramp = np.divide(within**2, 2 * ramp, out=np.zeros_like(ramp), where=ramp > 0)
    return on_ramp + np.clip(limit - after, 0, None)


def _area_of_image(mask: np.ndarray, heatmap: np.ndarray, limit: float) -> float:
    seen = ~np.isnan(heatmap)
    low, high = heatmap[seen].min(), heatmap[seen].max()
    if low == high:
        return float("nan")
    thresholds = np.arange(low, high, (high - low) / _N_THRESHOLDS)

    def share_above(values: np.ndarray) -> np.ndarray:
        return 1 - np.searchsorted(np.sort(values), thresholds, side="right") / len(values)

    background = heatmap[seen & ~mask]
    regions = _regions(mask, heatmap)
    if not len(background) or not regions:
        return float("nan")
    rates = share_above(background)
    overlap = np.mean([share_above(region) for region in regions], axis=0)
    kept = rates < limit
    if not rates[kept].any():
        return float("nan")
    rates, overlap = rates[kept][::-1], overlap[kept][::-1]
    widths = np.diff(rates / rates.max())
    return float(np.sum(widths * (overlap[1:] + overlap[:-1]) / 2))


def _auroc(negative: np.ndarray, positive: np.ndarray) -> float:
    if not len(negative) or not len(positive):
        return float("nan")
    # Searching the few positives among the sorted negatives is cheaper than ranking all together.
    negative, positive = np.sort(negative), np.sort(positive)
    below = np.searchsorted(negative, positive, side="left")
    tied = np.searchsorted(negative, positive, side="right") - below
    return float(np.mean(below + tied / 2) / len(negative))
