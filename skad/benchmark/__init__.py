"""Tables of detectors on local copies of data sets: ``python -m skad.benchmark``."""

from typing import TYPE_CHECKING

from skad._common.lazy import lazy_names

if TYPE_CHECKING:
    from skad.benchmark._evaluation import evaluate
    from skad.benchmark._preset import Preset, build_detector
    from skad.benchmark._presets import PRESETS, TABLES
    from skad.benchmark._published import published, published_sources
    from skad.benchmark._runner import run
    from skad.benchmark._tables import write_tables

__all__ = [
    "PRESETS",
    "TABLES",
    "Preset",
    "build_detector",
    "evaluate",
    "published",
    "published_sources",
    "run",
    "write_tables",
]

_HOMES = {
    "PRESETS": "_presets",
    "TABLES": "_presets",
    "Preset": "_preset",
    "build_detector": "_preset",
    "evaluate": "_evaluation",
    "published": "_published",
    "published_sources": "_published",
    "run": "_runner",
    "write_tables": "_tables",
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
