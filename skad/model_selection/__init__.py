"""Model selection: splitters that train on good images only, scorers of images and heat maps."""

from skad.model_selection._scorers import (
    HeatmapScorer,
    aupro_scorer,
    average_precision_scorer,
    discriminability_scorer,
    image_auroc_scorer,
    pixel_auroc_scorer,
)
from skad.model_selection._splitters import OneClassKFold, OneClassShuffleSplit
from skad.model_selection._unwrap import unwrap

__all__ = [
    "HeatmapScorer",
    "OneClassKFold",
    "OneClassShuffleSplit",
    "aupro_scorer",
    "average_precision_scorer",
    "discriminability_scorer",
    "image_auroc_scorer",
    "pixel_auroc_scorer",
    "unwrap",
]
