"""Frozen backbones, patch embedding, and the patches of the training images."""

from skad._features.backbones import FeatureNet, load_backbone, pin_convolutions
from skad._features.extractor import FeatureSpec, PatchExtractor, patch_extractor
from skad._features.invariance import BatchInvariant
from skad._features.patches import (
    PatchesInMemory,
    PatchesStreamed,
    TrainingPatches,
    TransformedPatches,
)

__all__ = [
    "BatchInvariant",
    "FeatureNet",
    "FeatureSpec",
    "PatchExtractor",
    "PatchesInMemory",
    "PatchesStreamed",
    "TrainingPatches",
    "TransformedPatches",
    "load_backbone",
    "patch_extractor",
    "pin_convolutions",
]
