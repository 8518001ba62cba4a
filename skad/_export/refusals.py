"""What cannot be exported yet, and what to do instead; said before any work starts."""

from __future__ import annotations

from typing import Any

from skad._base import BaseImageDetector
from skad._scoring.maps import is_large
from skad._verdicts import BaseDetector


class NotExportableError(ValueError):
    """A detector has something that a file of ONNX cannot hold yet; the message names it."""


def refuse(detector: BaseDetector) -> None:
    """Refuse a fitted detector that cannot be exported.

    Parameters
    ----------
    detector : detector
        Fitted.

    Raises
    ------
    NotExportableError
    """
    name = type(detector).__name__
    if not isinstance(detector, BaseImageDetector):
        raise NotExportableError(
            f"{name}: only detectors of one network can be exported so far; export its members one by "
            "one, or use skad.save."
        )
    for problem in _problems(detector):
        raise NotExportableError(f"{name}: {problem}")


def _problems(detector: Any) -> list[str]:
    """Say what cannot be exported."""
    index, precision = getattr(detector, "index", "auto"), detector.precision
    roi, problems = detector._roi(), []
    if detector._tiling() is not None:
        problems.append(
            "tiles cannot be exported so far: fit with tiles=None, or use skad.save for this one."
        )
    if roi is not None and roi.mask is None:
        problems.append(
            "roi is a function, and a file holds no code: fit with a mask, or find the region before "
            "and pass images that are cut out."
        )
    if index not in ("auto", "Flat"):
        problems.append(
            f"index={index!r} searches by faiss in its own way: fit with index='auto', which searches "
            "exactly, as the file does."
        )
    if precision != "float32":
        problems.append(
            f"precision={precision!r} cannot be exported so far: fit with precision='float32'."
        )
    if hasattr(detector, "n_features_in_") and detector.image_shape is None:
        problems.append(
            "it was fitted on a table of numbers, whose rows are no images: fit on images, or with "
            "image_shape=(H, W)."
        )
    if is_large(detector.geometry_.canvas) and roi is not None:
        problems.append("a region of interest needs a canvas of at most 1024 x 1024 pixels.")
    return problems
