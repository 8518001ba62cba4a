"""What learns: similarities, losses and training loops. Tensors only, nothing of estimators."""

from skad._learning.dinomaly_network import DinomalyNetwork, build_dinomaly
from skad._learning.dinomaly_training import DinomalySettings, DinomalyTraining
from skad._learning.gaussians import (
    Gaussians,
    blocks_of,
    fit_gaussians,
    squared_distances,
    values_per_root,
)
from skad._learning.linear_embedding import LearnedEmbedding, ReConPatchSettings, learn_embedding
from skad._learning.recontrast_network import (
    ReContrastNetwork,
    anomaly_map,
    build_network,
    decoder_design,
    pair_distances,
    summed,
)
from skad._learning.recontrast_training import ReContrastSettings, ReContrastTraining
from skad._learning.stable_norm import make_stable
from skad._learning.training import Training

__all__ = [
    "DinomalyNetwork",
    "DinomalySettings",
    "DinomalyTraining",
    "Gaussians",
    "LearnedEmbedding",
    "ReConPatchSettings",
    "ReContrastNetwork",
    "ReContrastSettings",
    "ReContrastTraining",
    "Training",
    "anomaly_map",
    "blocks_of",
    "build_dinomaly",
    "build_network",
    "decoder_design",
    "fit_gaussians",
    "learn_embedding",
    "make_stable",
    "pair_distances",
    "squared_distances",
    "summed",
    "values_per_root",
]
