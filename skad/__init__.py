"""Visual anomaly detection as ordinary scikit-learn estimators.

Public names are loaded on first use: importing ``skad`` costs nothing and brings in neither
torch nor timm nor faiss.

Examples
--------
>>> import skad
>>> skad.PatchCoreDetector().get_params()["n_neighbors"]
1
"""

from importlib import import_module
from typing import TYPE_CHECKING

from skad._common.version import __version__

if TYPE_CHECKING:
    from skad._classifier import DefectClassifier
    from skad._common.pickles import SKOPS_TYPES
    from skad._dinomaly import DinomalyDetector
    from skad._export.export import export_onnx
    from skad._features.store import FeatureStore
    from skad._fusion import ScoreFusionDetector
    from skad._loading import load
    from skad._overlay import HeatmapOverlay
    from skad._padim import PaDiMDetector
    from skad._patchcore import PatchCoreDetector
    from skad._reconpatch import ReConPatchDetector
    from skad._recontrast import ReContrastDetector
    from skad._runtime.detector import ExportedDetector
    from skad._scoring.judging import Inspection
    from skad._scoring.regions import Region, Regions
    from skad._spade import SPADEDetector
    from skad.exceptions import FeatureError, ImageFileWarning, TabularDataWarning
    from skad.persistence import save

__all__ = [
    "SKOPS_TYPES",
    "DefectClassifier",
    "DinomalyDetector",
    "ExportedDetector",
    "FeatureError",
    "FeatureStore",
    "HeatmapOverlay",
    "ImageFileWarning",
    "Inspection",
    "PaDiMDetector",
    "PatchCoreDetector",
    "ReConPatchDetector",
    "ReContrastDetector",
    "Region",
    "Regions",
    "SPADEDetector",
    "ScoreFusionDetector",
    "TabularDataWarning",
    "__version__",
    "export_onnx",
    "load",
    "save",
]

_HOMES = {
    "DefectClassifier": "skad._classifier",
    "FeatureError": "skad.exceptions",
    "FeatureStore": "skad._features.store",
    "ImageFileWarning": "skad.exceptions",
    "PatchCoreDetector": "skad._patchcore",
    "ReConPatchDetector": "skad._reconpatch",
    "ReContrastDetector": "skad._recontrast",
    "DinomalyDetector": "skad._dinomaly",
    "PaDiMDetector": "skad._padim",
    "ExportedDetector": "skad._runtime.detector",
    "HeatmapOverlay": "skad._overlay",
    "Inspection": "skad._scoring.judging",
    "Region": "skad._scoring.regions",
    "Regions": "skad._scoring.regions",
    "SKOPS_TYPES": "skad._common.pickles",
    "SPADEDetector": "skad._spade",
    "ScoreFusionDetector": "skad._fusion",
    "TabularDataWarning": "skad.exceptions",
    "export_onnx": "skad._export.export",
    "load": "skad._loading",
    "save": "skad.persistence",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'skad' has no attribute {name!r}")
    from skad._common.forks import LOADING

    with LOADING:
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
