"""Frozen backbones, patch embedding, and the patches of the training images."""

from skad._features.backbones import load_backbone
from skad._features.extractor import (
    FeatureSpec,
    PatchExtractor,
    check_features,
    inside,
    patch_extractor,
)
from skad._features.feature_net import FeatureNet
from skad._features.identity import BackboneIdentity
from skad._features.mapped import MappedExtractor
from skad._features.patches import (
    Canvases,
    PatchesInMemory,
    PatchesPooled,
    PatchesStreamed,
    TrainingPatches,
    TransformedPatches,
)
from skad._features.store import FeatureStore, StoredExtractor, as_feature_store, folder_of

Extractor = PatchExtractor | StoredExtractor | MappedExtractor

__all__ = [
    "BackboneIdentity",
    "Canvases",
    "Extractor",
    "FeatureNet",
    "FeatureSpec",
    "FeatureStore",
    "MappedExtractor",
    "PatchExtractor",
    "PatchesInMemory",
    "PatchesPooled",
    "PatchesStreamed",
    "StoredExtractor",
    "TrainingPatches",
    "TransformedPatches",
    "as_feature_store",
    "check_features",
    "folder_of",
    "inside",
    "load_backbone",
    "patch_extractor",
]
