"""A row of a table as settings of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skad._dinomaly import DinomalyDetector
from skad._fusion import ScoreFusionDetector
from skad._padim import PaDiMDetector
from skad._patchcore import PatchCoreDetector
from skad._reconpatch import ReConPatchDetector
from skad._recontrast import ReContrastDetector
from skad._spade import SPADEDetector

Params = Mapping[str, Any]

METHODS: dict[str, Any] = {
    "patchcore": PatchCoreDetector,
    "reconpatch": ReConPatchDetector,
    "recontrast": ReContrastDetector,
    "dinomaly": DinomalyDetector,
    "padim": PaDiMDetector,
    "spade": SPADEDetector,
    "fusion": ScoreFusionDetector,
}


@dataclass(frozen=True)
class Preset:
    """A row of a table.

    Parameters
    ----------
    title : str
        What tables call it.
    method : {"patchcore", "reconpatch", "recontrast", "dinomaly", "padim", "spade", "fusion"}
    params : mapping
        Parameters of the detector. "fusion": ``estimators`` holds (name, method, params).
    by_category : mapping of str to mapping, default={}
        Parameters that differ for some categories.
    shots : int, default=None
        Good images to learn from, drawn at random; None: all.
    n_seeds : int, default=1
        Repetitions with seeds 0, 1, ...; each draws other `shots`.
    one_model : bool, default=False
        Whether one detector learns all categories at once.
    augmented : bool, default=False
        Whether training and test images are changed at random (ReConPatch, Table S5).
    rotations : int, default=1
        Directions, evenly over the circle, in which each training image is learned.
    note : str, default=""
        What it leaves out of the published method, or does otherwise; ``--list`` prints it.
    """

    title: str
    method: str
    params: Params
    by_category: Mapping[str, Params] = field(default_factory=dict)
    shots: int | None = None
    n_seeds: int = 1
    one_model: bool = False
    augmented: bool = False
    rotations: int = 1
    note: str = ""


def build_detector(preset: Preset, category: str, seed: int, changes: Params) -> Any:
    """Make the detector of a preset.

    Parameters
    ----------
    preset : Preset
    category : str
        What it is for; some presets have settings of their own for some categories.
    seed : int
        Its `random_state`.
    changes : mapping
        Parameters to be set on top (`device`, `backbone`, ...), on every member of an ensemble that
        knows them.

    Returns
    -------
    detector
        Unfitted.

    Raises
    ------
    ValueError
        If a change is no parameter of the detector; the message lists those that are.
    """
    if preset.method == "fusion":
        members = [
            (name, _make(METHODS[method], params, seed, changes))
            for name, method, params in preset.params["estimators"]
        ]
        others = {name: value for name, value in preset.params.items() if name != "estimators"}
        return ScoreFusionDetector(members, **others)
    params = {**preset.params, **preset.by_category.get(category, {})}
    return _make(METHODS[preset.method], params, seed, changes)


def _make(kind: Any, params: Params, seed: int, changes: Params) -> Any:
    detector = kind(**params, random_state=seed)
    unknown = sorted(set(changes) - set(detector.get_params()))
    if unknown:
        raise ValueError(
            f"{kind.__name__} has no parameter {', '.join(map(repr, unknown))}; it has "
            f"{', '.join(sorted(detector.get_params()))}."
        )
    return detector.set_params(**changes)
