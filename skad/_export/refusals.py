"""What cannot be exported yet, and what to do instead; said before any work starts."""

from __future__ import annotations

from typing import Any

from skad._export.parts import needs_parts
from skad._fusion import ScoreFusionDetector
from skad._padim import PaDiMDetector
from skad._patchcore import PatchCoreDetector
from skad._reconstruction import BaseReconstructionDetector
from skad._spade import SPADEDetector
from skad._verdicts import BaseDetector


class NotExportableError(ValueError):
    """A detector has something that a file of ONNX cannot hold yet; the message names it."""


def refuse(detector: BaseDetector, *, int8: bool = False) -> None:
    """Refuse a fitted detector that cannot be exported.

    Parameters
    ----------
    detector : detector
        Fitted.
    int8 : bool, default=False
        Whether its convolutions are to be written in 8-bit integers.

    Raises
    ------
    NotExportableError
    """
    name = type(detector).__name__
    problem = _problem(detector)
    if problem is None and int8 and not isinstance(detector, PatchCoreDetector):
        problem = "int8_from is for detectors with a memory bank: leave it out."
    if problem is None and int8 and needs_parts(detector):
        problem = (
            "int8_from is for images on a canvas of one size, without tiles='native' and without a "
            "region of interest on more than 1024 x 1024 pixels: leave it out."
        )
    if problem is not None:
        raise NotExportableError(f"{name}: {problem}")


def _problem(detector: Any) -> str | None:
    """Say what of a detector, or of a member, cannot be exported."""
    if not isinstance(detector, ScoreFusionDetector):
        return _problem_of_one(detector)
    for name, member in zip(detector._names, detector.estimators_, strict=True):
        problem = _problem_of_one(member)
        if problem is not None:
            return f"member {name!r}: {problem}"
    return None


def _problem_of_one(detector: Any) -> str | None:
    if isinstance(detector, SPADEDetector):
        return "it cannot be exported so far; skad.save holds it."
    if not isinstance(detector, PatchCoreDetector | PaDiMDetector | BaseReconstructionDetector):
        return "only skad's own detectors can be exported; pickle others, or write their graph yourself."
    index, roi = getattr(detector, "index", "auto"), detector._roi()
    if roi is not None and roi.mask is None:
        return (
            "roi is a function, and a file holds no code: fit with a mask, or find the region before "
            "and pass images that are cut out."
        )
    if index not in ("auto", "Flat"):
        return (
            f"index={index!r} searches by faiss in its own way: fit with index='auto', which searches "
            "exactly, as the file does."
        )
    if detector.precision != "float32":
        return (
            f"precision={detector.precision!r} cannot be exported so far: fit with "
            "precision='float32'."
        )
    if hasattr(detector, "n_features_in_") and detector.image_shape is None:
        return (
            "it was fitted on a table of numbers, whose rows are no images: fit on images, or with "
            "image_shape=(H, W)."
        )
    return None
