"""Runs an exported file beside the detector that it was made of, and refuses it if they differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from skad._runtime.detector import ExportedDetector
from skad._scoring.results import MappedImage

# Float32 resolves a part of a value itself: so much of the tolerance is allowed of each value beside.
_OF_VALUES = 0.1
# Images of the probe, where there are no others.
_N_PROBES = 4
_REMEDY = (
    "Where all good images are nearly alike, the threshold is not much more than rounding: allow more, "
    "export_onnx(..., tolerance=1e-4), if that is known to be harmless."
)
_REMEDY_FOR_INT8 = (
    "8-bit integers do not hold what this network makes of the image: leave int8_from out, or, if such "
    "images are far beyond the threshold anyway, allow more by tolerance."
)


class ExportError(RuntimeError):
    """An exported file does not score as its detector does; it was not written."""


class Differences(NamedTuple):
    """How far a file and its detector differ."""

    n_images: int
    score: float
    """The largest difference of scores, as a fraction of the anomaly threshold, to which a tenth of the
    score is added."""
    heatmap: float
    """The same of values of maps."""


def compare(
    detector: Any, exported: ExportedDetector, X: Any, tolerance: float, *, verdicts: bool = True
) -> Differences:
    """Score and map images by a detector and by its file.

    Parameters
    ----------
    detector : detector
        On the CPU.
    exported : ExportedDetector
    X : images
    tolerance : float
        The largest difference allowed.
    verdicts : bool, default=True
        Whether the file has the threshold of the detector, so that verdicts must be the same.

    Returns
    -------
    Differences

    Raises
    ------
    ExportError
        If a score or a map differs by more than the tolerance, or a verdict differs although the score
        is farther than that from the threshold.
    """
    n, of_scores, of_maps, scale = 0, 0.0, 0.0, abs(detector.offset_)
    found: Iterator[tuple[MappedImage, MappedImage]] = zip(
        detector._iter_maps(X), exported._iter_maps(X), strict=True
    )
    for i, (wanted, given) in enumerate(found):
        by_score = _difference(np.array(wanted.score), np.array(given.score), scale)
        by_map = _difference(wanted.array(), given.array(), scale)
        if not (by_score <= tolerance and by_map <= tolerance):
            what, much = ("map", by_map) if by_score <= tolerance else ("score", by_score)
            raise ExportError(
                f"the file was not written: ONNX Runtime gives image {i} another {what} than the "
                f"detector, by {much:.2g} of the anomaly threshold; {tolerance:g} is allowed. "
                + (_REMEDY if verdicts else _REMEDY_FOR_INT8)
            )
        if verdicts:
            _check_verdict(i, detector.offset_, -wanted.score, -given.score, tolerance * scale)
        n, of_scores, of_maps = i + 1, max(of_scores, by_score), max(of_maps, by_map)
    return Differences(n, of_scores, of_maps)


def _difference(wanted: np.ndarray, given: np.ndarray, scale: float) -> float:
    """Return the largest difference of values, as a fraction of the threshold and of themselves."""
    return float(np.nanmax(np.abs(wanted - given) / (scale + _OF_VALUES * np.abs(wanted))))


def _check_verdict(i: int, offset: float, wanted: float, given: float, tolerance: float) -> None:
    differs = (wanted >= offset) != (given >= offset)
    if differs and abs(wanted - offset) > tolerance:
        raise ExportError(
            f"the file was not written: ONNX Runtime gives image {i} another verdict than the detector."
        )


def probe(shape: tuple[int, int], *, varied: bool) -> list[np.ndarray]:
    """Draw images to compare by, where a user has none: always the same.

    Parameters
    ----------
    shape : tuple of two ints
        Height and width.
    varied : bool
        Whether images may have other shapes, too.

    Returns
    -------
    list of ndarray of shape (H, W, 3), uint8
        Smooth patterns with noise: half of the images noisier than any photograph.
    """
    rng = np.random.default_rng(0)
    images = []
    for number in range(_N_PROBES):
        height, width = shape
        if varied and number % 2:
            height, width = height * 3 // 2, width
        rows, columns = np.mgrid[:height, :width]
        wave = np.sin(rows / rng.uniform(3, 30) + columns / rng.uniform(3, 30))
        noise = rng.normal(0, 4 + 20 * (number // 2), (height, width, 3))
        colour = rng.uniform(60, 190, 3) + 40 * wave[:, :, None]
        images.append(np.clip(colour + noise, 0, 255).astype(np.uint8))
    return images
