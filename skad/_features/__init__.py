"""Frozen backbones, patch embedding, and the patches of the training images."""

from skad._features.backbones import FeatureNet, load_backbone
from skad._features.extractor import FeatureSpec, PatchExtractor, patch_extractor
from skad._features.patches import (
    PatchesInMemory,
    PatchesStreamed,
    TrainingPatches,
    TransformedPatches,
)

__all__ = [
    "FeatureNet",
    "FeatureSpec",
    "PatchExtractor",
    "PatchesInMemory",
    "PatchesStreamed",
    "TrainingPatches",
    "TransformedPatches",
    "load_backbone",
    "patch_extractor",
]
