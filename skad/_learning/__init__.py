"""What learns: similarities, losses and training loops. Tensors only, nothing of estimators."""

from skad._learning.linear_embedding import LearnedEmbedding, ReConPatchSettings, learn_embedding

__all__ = ["LearnedEmbedding", "ReConPatchSettings", "learn_embedding"]
