"""What pickles hold, and files of skops, which are made of the same state."""

from __future__ import annotations

import copy
import os
from functools import cache
from importlib import metadata
from typing import Any

from skad._common.version import __version__
from skad._common.warn import warn_user

_RECORDED = ("numpy", "scikit-learn", "timm", "torch")

SKOPS_TYPES: list[str] = [
    "skad._bank.memory_bank.MemoryBank",
    "skad._bank.selection.Cover",
    "skad._classifier.DefectClassifier",
    "skad._dinomaly.DinomalyDetector",
    "skad._features.extractor.FeatureSpec",
    "skad._features.identity.BackboneIdentity",
    "skad._features.store.FeatureStore",
    "skad._fusion.Member",
    "skad._fusion.ScoreFusionDetector",
    "skad._images.geometry.Geometry",
    "skad._images.roi.RegionOfInterest",
    "skad._images.tiling.Tiling",
    "skad._padim.PaDiMDetector",
    "skad._patchcore.PatchCoreDetector",
    "skad._reconpatch.ReConPatchDetector",
    "skad._recontrast.ReContrastDetector",
    "skad._scoring.calibration.CalibrationLog",
    "skad._scoring.fusing.RobustScale",
    "skad._scoring.growing.Growth",
    "skad._scoring.probabilities.IsotonicMap",
    "skad._scoring.probabilities.SigmoidMap",
    "skad._spade.SPADEDetector",
]
"""The classes that a detector is made of, for ``trusted=`` of ``skops.io.load``.

They are skad's own alone, and none runs anything when it is made. A network of your own and what it
consists of are yours to add.
"""


def portable(value: Any) -> Any:
    """Turn a path into text, and a range into a tuple, also inside an object that holds one.

    A path object can be unpickled only where paths are written the same way: none of Windows is read on
    Linux. A range is a class that skops must be told to trust.

    Parameters
    ----------
    value : object
        A parameter of a detector; not changed.

    Returns
    -------
    object
        The value itself, unless it is a path or a range, a feature store or ``joblib.Memory`` at a
        path, or a dict of parameters that holds such.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, range):
        return tuple(value)
    if isinstance(value, dict):
        items = {name: portable(item) for name, item in value.items()}
        return value if all(items[name] is item for name, item in value.items()) else items
    attributes = getattr(value, "__dict__", {})
    if attributes.keys().isdisjoint({"location", "path"}):
        return value
    places = {name: portable(item) for name, item in attributes.items()}
    if all(places[name] is item for name, item in attributes.items()):
        return value
    moved = copy.copy(value)
    vars(moved).update(places)
    return moved


def versions() -> dict[str, str]:
    """Versions of skad and of the libraries that scores depend on.

    Returns
    -------
    dict of str
    """
    return {"skad": __version__, **_versions_of_libraries()}


@cache
def _versions_of_libraries() -> dict[str, str]:
    return {name: metadata.version(name) for name in _RECORDED}


def warn_of_other_versions(name: str, written: dict[str, str]) -> None:
    """Warn if a pickle comes from another skad; libraries alone change scores by rounding at most.

    Parameters
    ----------
    name : str
        Of the class that was pickled.
    written : dict of str
        From `versions`, when it was.
    """
    if not written or written["skad"] == __version__:
        return
    now = versions()
    differing = [
        f"{lib} {old} (now {now.get(lib)})" for lib, old in written.items() if old != now.get(lib)
    ]
    warn_user(
        f"this {name} was pickled with {', '.join(differing)}: compare its scores with known ones "
        "before you rely on it, or fit it again."
    )
