"""Features of images by a frozen backbone, for any model of scikit-learn."""

from skad.features._embedder import PatchEmbedder

__all__ = ["PatchEmbedder"]
