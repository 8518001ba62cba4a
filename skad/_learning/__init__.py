"""What learns: similarities, losses and training loops. Tensors only, nothing of estimators."""

from skad._learning.dinomaly_network import DinomalyNetwork, build_dinomaly
from skad._learning.dinomaly_training import DinomalySettings, DinomalyTraining
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
    "LearnedEmbedding",
    "ReConPatchSettings",
    "ReContrastNetwork",
    "ReContrastSettings",
    "ReContrastTraining",
    "Training",
    "anomaly_map",
    "build_dinomaly",
    "build_network",
    "decoder_design",
    "learn_embedding",
    "make_stable",
    "pair_distances",
    "summed",
]
