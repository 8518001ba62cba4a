"""Frozen backbones, patch embedding, and the patches of the training images."""

from skad._features.backbones import load_backbone
from skad._features.defaults import (
    default_image_size,
    default_layers,
    default_normalize,
    default_patch_size,
    is_plain_transformer,
    layer_strides,
    layers_of_strides,
    middle_layers,
)
from skad._features.extractor import (
    FeatureSpec,
    PatchExtractor,
    check_features,
    inside,
    patch_extractor,
)
from skad._features.feature_net import FeatureNet, check_tokens
from skad._features.identity import BackboneIdentity
from skad._features.mapped import MappedExtractor
from skad._features.patches import (
    Canvases,
    FeatureMaps,
    HeldMaps,
    PatchesInMemory,
    PatchesJoined,
    StreamedMaps,
    TrainingPatches,
)
from skad._features.precomputed import PRECOMPUTED, PrecomputedExtractor
from skad._features.pyramid import Pyramid
from skad._features.store import FeatureStore, StoredExtractor, as_feature_store, folder_of
from skad._features.tiles import TILES_AT_ONCE, tile_footprint
from skad._features.whitening import WhitenedExtractor, learn_whitening

Extractor = PatchExtractor | StoredExtractor | WhitenedExtractor | MappedExtractor

__all__ = [
    "PRECOMPUTED",
    "TILES_AT_ONCE",
    "BackboneIdentity",
    "Canvases",
    "Extractor",
    "FeatureMaps",
    "FeatureNet",
    "FeatureSpec",
    "FeatureStore",
    "HeldMaps",
    "MappedExtractor",
    "PatchExtractor",
    "PatchesInMemory",
    "PatchesJoined",
    "PrecomputedExtractor",
    "Pyramid",
    "StoredExtractor",
    "StreamedMaps",
    "TrainingPatches",
    "WhitenedExtractor",
    "as_feature_store",
    "check_features",
    "check_tokens",
    "default_image_size",
    "default_layers",
    "default_normalize",
    "default_patch_size",
    "folder_of",
    "inside",
    "is_plain_transformer",
    "layer_strides",
    "layers_of_strides",
    "learn_whitening",
    "load_backbone",
    "middle_layers",
    "patch_extractor",
    "tile_footprint",
]
