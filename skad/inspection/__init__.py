"""Pictures of a detector's results, and reports; needs matplotlib (``pip install "skad[plot]"``).

The displays follow scikit-learn's: ``from_estimator`` scores and draws, ``from_predictions`` draws
results computed before, ``plot`` draws again. matplotlib is imported only when something is drawn.
A display makes its own figure, without pyplot: no window opens, and nothing needs closing. In a
notebook it shows as the last expression of a cell.
"""

from skad.inspection._coreset import CoresetDisplay
from skad.inspection._drift import DriftDisplay
from skad.inspection._heatmaps import HeatmapDisplay
from skad.inspection._pixel_curves import PixelPrecisionRecallDisplay, PixelRocDisplay
from skad.inspection._report import report
from skad.inspection._score_histogram import ScoreHistogramDisplay
from skad.inspection._spectrum import SpectrumDisplay

__all__ = [
    "CoresetDisplay",
    "DriftDisplay",
    "HeatmapDisplay",
    "PixelPrecisionRecallDisplay",
    "PixelRocDisplay",
    "ScoreHistogramDisplay",
    "SpectrumDisplay",
    "report",
]
