"""Tables of detectors on local copies of data sets: ``python -m skad.benchmark``."""

from skad.benchmark._evaluation import evaluate
from skad.benchmark._presets import PRESETS, TABLES, Preset, build_detector
from skad.benchmark._published import published
from skad.benchmark._runner import run
from skad.benchmark._tables import write_tables

__all__ = [
    "PRESETS",
    "TABLES",
    "Preset",
    "build_detector",
    "evaluate",
    "published",
    "run",
    "write_tables",
]
