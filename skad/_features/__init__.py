"""Frozen backbones, patch embedding, and the patches of the training images."""

from skad._features.backbones import FeatureNet, load_backbone
from skad._features.extractor import FeatureSpec, PatchExtractor, patch_extractor
from skad._features.patches import (
    PatchesInCells,
    PatchesInMemory,
    PatchesStreamed,
    TrainingPatches,
    TransformedPatches,
    check_features,
    inside,
    largest_of,
)
from skad._features.store import FeatureStore, StoredExtractor, as_feature_store, folder_of
from skad._torch.invariance import BatchInvariant

__all__ = [
    "BatchInvariant",
    "FeatureNet",
    "FeatureSpec",
    "FeatureStore",
    "PatchExtractor",
    "PatchesInCells",
    "PatchesInMemory",
    "PatchesStreamed",
    "StoredExtractor",
    "TrainingPatches",
    "TransformedPatches",
    "as_feature_store",
    "check_features",
    "folder_of",
    "inside",
    "largest_of",
    "load_backbone",
    "patch_extractor",
]
