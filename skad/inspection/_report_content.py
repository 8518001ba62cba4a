"""Content of a report without its pictures: figures, choice of images, parameters, versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skad._common.text import shortened
from skad._common.version import __version__
from skad._scoring.regions import Region
from skad._sklearn_compat import _safe_indexing
from skad.inspection._drift import watch
from skad.metrics import PixelCounts, average_precision, discriminability, image_auroc

_N_REGIONS = 5  # listed per image
_N_CLOSEST = 3  # images nearest to the threshold, shown where there is no mistake
_LONGEST_VALUE = 160  # characters of a parameter


class Findings(NamedTuple):
    """A detector and its results on n images."""

    detector: Any
    scores: np.ndarray
    """(n,) ``score_samples``."""
    labels: np.ndarray | None
    """(n,) +1 good, -1 defective."""
    counts: PixelCounts | None
    """Of all pixels; None without masks."""


class Choice(NamedTuple):
    """Images of one section."""

    title: str
    text: str
    indices: np.ndarray
    """Of the images, in the order in which they are shown."""


def summarise(found: Findings) -> list[tuple[str, str]]:
    """List the figures of a report.

    Parameters
    ----------
    found : Findings

    Returns
    -------
    list of (name, value)
    """
    detector, scores, labels, counts = found
    called = scores < detector.offset_
    if labels is None:
        figures = [("images", str(len(scores))), ("called defective", _fraction(called, "images"))]
    else:
        good, defective = labels == 1, labels == -1
        figures = [
            ("images", f"{len(scores)} ({good.sum()} good, {defective.sum()} defective)"),
            *_image_figures(labels, scores),
            ("false-alarm rate", _fraction(called[good], "good images")),
            ("detection rate", _fraction(called[defective], "defective images")),
        ]
    if counts is not None:
        figures.append(("pixel AUROC", _figure(counts.auroc())))
        figures.append(("AUPRO (up to 30 % false positives)", _figure(counts.aupro())))
    if detector.contamination == "auto":
        figures.append(("target false-alarm rate", f"{100 * detector.target_false_alarm_rate:g} %"))
    figures.append(("threshold on score_samples (offset_)", f"{detector.offset_:.4g}"))
    figures.append(("threshold on heat maps", f"{detector.heatmap_threshold_:.4g}"))
    figures.append(("drift from the training images", _drift(detector, scores, labels)))
    return figures


def _drift(detector: Any, scores: np.ndarray, labels: np.ndarray | None) -> str:
    """Say whether good images, in the order of X, look like the training images.

    Labelled good images all count; without labels, those that are called good. The evidence is that
    of a stream, and valid in any order that was not chosen by scores.
    """
    if detector.calibration_scores_ is None:
        return "cannot be told: the detector has no calibration scores"
    monitor = watch(detector, "good" if labels is None else "all")
    kind = "called good" if labels is None else "labelled good"
    of_good = scores if labels is None else scores[labels == 1]
    if not len(of_good) or not monitor.update(of_good).n_counted_:
        return f"cannot be told: no image is {kind}"
    found = "an alarm" if monitor.is_drifting_ else "no alarm"
    mean = np.nanmean(monitor.p_values_)
    return (
        f"{found} in {monitor.n_counted_} images {kind}; mean p-value {mean:.2f}, 0.5 without drift"
    )


def _image_figures(labels: np.ndarray, scores: np.ndarray) -> list[tuple[str, str]]:
    if len(np.unique(labels)) < 2:
        return [("image AUROC, average precision, d'", "need good and defective images")]
    d_prime = discriminability(scores[labels == 1], scores[labels == -1])
    return [
        ("image AUROC", _figure(image_auroc(labels, scores))),
        ("average precision", _figure(average_precision(labels, scores))),
        ("d'", f"{d_prime:.2f}"),
    ]


def _figure(value: float) -> str:
    return "needs good and defective pixels" if np.isnan(value) else f"{value:.4f}"


def _fraction(called: np.ndarray, of: str) -> str:
    if not len(called):
        return f"no {of}"
    return f"{called.sum()} of {len(called)} {of} ({100 * called.mean():.1f} %)"


def choose(found: Findings, n: int) -> list[Choice]:
    """Choose the images that are shown: the worst mistakes, else the closest calls.

    Parameters
    ----------
    found : Findings
    n : int
        Maximum number of images per section.

    Returns
    -------
    list of Choice
        False alarms if there are good images, missed defects if there are defective ones; without
        labels, the most anomalous images.
    """
    scores, labels, threshold = found.scores, found.labels, found.detector.offset_
    if labels is None:
        indices = np.argsort(scores, kind="stable")
        text = f"{min(n, len(indices))} of {len(indices)}, the most anomalous first."
        return [Choice("Most anomalous images", text, indices[:n])]
    good, defective = np.flatnonzero(labels == 1), np.flatnonzero(labels == -1)
    lowest_first = good[np.argsort(scores[good], kind="stable")]
    highest_first = defective[np.argsort(-scores[defective], kind="stable")]
    choices = [
        _worst("False alarms", "good images called defective",
               lowest_first, scores[lowest_first] < threshold, n),
        _worst("Missed defects", "defective images called good",
               highest_first, scores[highest_first] >= threshold, n),
    ]  # fmt: skip
    return [choice for choice in choices if len(choice.indices)]


def _worst(title: str, what: str, indices: np.ndarray, wrong: np.ndarray, n: int) -> Choice:
    """Take the worst mistakes, or the closest calls if there is none; `indices` begin with the worst."""
    n_wrong = int(wrong.sum())
    if not n_wrong:
        text = f"None among {len(indices)}. These came closest to it."
        return Choice(title, text, indices[: min(n, _N_CLOSEST)])
    text = f"{what.capitalize()}: {n_wrong} of {len(indices)}."
    if n_wrong > n:
        text += f" The worst {n} are shown."
    return Choice(title, text, indices[: min(n, n_wrong)])


def verdict(found: Findings, i: int) -> str:
    """Describe the label of an image and the decision on it.

    Parameters
    ----------
    found : Findings
    i : int
        Index of the image.

    Returns
    -------
    str
    """
    decision = found.scores[i] - found.detector.offset_
    called = "good" if decision >= 0 else "defective"
    text = f"called {called}, score {decision:+.3g} from the threshold"
    if found.labels is None:
        return text
    return f"{'good' if found.labels[i] == 1 else 'defective'}, {text}"


def list_regions(regions: Sequence[Region] | None) -> list[str]:
    """Describe the regions of an image: where they are, how large and how anomalous.

    Parameters
    ----------
    regions : sequence of Region or None
        The highest peak first.

    Returns
    -------
    list of str
        One text per region, of the first ones; then how many more there are.
    """
    regions = [] if regions is None else regions
    texts = [_describe_region(region) for region in regions[:_N_REGIONS]]
    more = len(regions) - len(texts)
    return [*texts, f"and {more} more"] if more else texts


def _describe_region(region: Region) -> str:
    top, left, bottom, right = region.box
    pixels = "1 pixel" if region.area == 1 else f"{region.area:,} pixels"
    return (
        f"rows {top} to {bottom - 1}, columns {left} to {right - 1}: {pixels} "
        f"({100 * region.fraction:.2g} %), peak {region.peak:.3g}"
    )


def name_file(X: Any, k: int) -> str:
    """Name the file of an image together with its folder: folders often use the same file names.

    Parameters
    ----------
    X : images
    k : int
        Index of the image in X.

    Returns
    -------
    str
        ``": folder/file.png"``; empty if the image is not a file.
    """
    item = _safe_indexing(X, [k])
    item = item.iloc[0] if hasattr(item, "iloc") else item[0]
    if not isinstance(item, str | os.PathLike):
        return ""
    return f": {Path(*Path(item).parts[-2:]).as_posix()}"


def list_parameters(estimator: Any) -> list[tuple[str, str]]:
    """List all parameters, including those of steps and members.

    Parameters
    ----------
    estimator : estimator

    Returns
    -------
    list of (name, value)
        Estimators and networks by their class; long values shortened.
    """
    return [(name, _describe(value)) for name, value in sorted(estimator.get_params().items())]


def _describe(value: Any) -> str:
    if hasattr(value, "__dict__"):
        return type(value).__name__
    return shortened(repr(value), _LONGEST_VALUE)


def list_versions() -> list[tuple[str, str]]:
    """List the versions that scores depend on.

    Returns
    -------
    list of (name, version)
    """
    names = ("scikit-learn", "torch", "timm", "numpy")
    installed = [(name, metadata.version(name)) for name in names]
    return [("skad", __version__), *installed, ("Python", platform.python_version())]
