"""Tables of detectors on local copies of data sets: ``python -m skad.benchmark``."""

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
