"""Metrics of anomaly detection: arrays in, numbers out.

Image metrics compare labels with scores, pixel metrics compare masks with heat maps, and
:func:`region_report` compares masks with regions at one threshold. Pixel metrics are
exact and take all heat maps together; :class:`PixelCounts` takes any number of them, a few at a time.
:class:`DriftMonitor` watches the scores of a running line.

Names are loaded on first use: :class:`DriftMonitor` needs NumPy alone, and works where an exported file
does, without scikit-learn.
"""

from typing import TYPE_CHECKING

from skad._common.lazy import lazy_names

if TYPE_CHECKING:
    from skad.metrics._drift import DriftMonitor
    from skad.metrics._image_metrics import average_precision, discriminability, image_auroc
    from skad.metrics._pixel_counts import PixelCounts, PixelCurves, PixelErrors
    from skad.metrics._pixel_metrics import (
        aupro,
        aupro_per_image,
        pixel_auroc,
        pixel_average_precision,
    )
    from skad.metrics._regions import RegionReport, region_report
    from skad.metrics._thresholds import (
        ThresholdReport,
        f1_optimal_threshold,
        threshold_at_false_alarm_rate,
        threshold_at_full_recall,
        threshold_report,
    )

__all__ = [
    "DriftMonitor",
    "PixelCounts",
    "PixelCurves",
    "PixelErrors",
    "RegionReport",
    "ThresholdReport",
    "aupro",
    "aupro_per_image",
    "average_precision",
    "discriminability",
    "f1_optimal_threshold",
    "image_auroc",
    "pixel_auroc",
    "pixel_average_precision",
    "region_report",
    "threshold_at_false_alarm_rate",
    "threshold_at_full_recall",
    "threshold_report",
]

_HOMES = {
    "DriftMonitor": "_drift",
    "PixelCounts": "_pixel_counts",
    "PixelCurves": "_pixel_counts",
    "PixelErrors": "_pixel_counts",
    "RegionReport": "_regions",
    "ThresholdReport": "_thresholds",
    "aupro": "_pixel_metrics",
    "aupro_per_image": "_pixel_metrics",
    "average_precision": "_image_metrics",
    "discriminability": "_image_metrics",
    "f1_optimal_threshold": "_thresholds",
    "image_auroc": "_image_metrics",
    "pixel_auroc": "_pixel_metrics",
    "pixel_average_precision": "_pixel_metrics",
    "region_report": "_regions",
    "threshold_at_false_alarm_rate": "_thresholds",
    "threshold_at_full_recall": "_thresholds",
    "threshold_report": "_thresholds",
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
