"""Pictures of what a detector sees, and a report; needs matplotlib (``pip install "skad[plot]"``).

Every display follows scikit-learn's: ``from_estimator`` scores and draws, ``from_predictions`` draws
what is at hand, ``plot`` draws again. matplotlib is imported when something is drawn, never before.
A display makes a figure of its own, without pyplot: no window opens, and nothing needs closing. In a
notebook it shows as the last expression of a cell.
"""

from skad.inspection._coreset import CoresetDisplay
from skad.inspection._heatmaps import HeatmapDisplay
from skad.inspection._pixel_curves import PixelPrecisionRecallDisplay, PixelRocDisplay
from skad.inspection._report import report
from skad.inspection._score_histogram import ScoreHistogramDisplay

__all__ = [
    "CoresetDisplay",
    "HeatmapDisplay",
    "PixelPrecisionRecallDisplay",
    "PixelRocDisplay",
    "ScoreHistogramDisplay",
    "report",
]
