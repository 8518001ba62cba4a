"""Scores of positions by a Gaussian of each, as tensors that can be exported."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from skad._export.networks import exportable
from skad._export.rendering import Seen
from skad._features import PatchExtractor, Pyramid
from skad._features.extractor import feature_maps
from skad._learning import Gaussians, squared_distances


class GaussianGrids(nn.Module):
    """Scores the positions of images by Mahalanobis' distance.

    Parameters
    ----------
    extractor : PatchExtractor
        On the CPU.
    pyramid : Pyramid
    means, factors : lists of ndarray
        As of :class:`Gaussians`.
    """

    def __init__(
        self,
        extractor: PatchExtractor,
        pyramid: Pyramid,
        means: list[np.ndarray],
        factors: list[np.ndarray],
    ) -> None:
        super().__init__()
        self.net, self.spec = exportable(extractor.net), extractor.spec
        self.embedding, self.pyramid = extractor.embedding, pyramid
        self.means, self.factors = map(_constants, (means, factors))
        self.parents = _constants(pyramid.parents)

    def forward(self, pixels: torch.Tensor, seen: Seen) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return grids (B, h, w); scores follow from their maps."""
        layers = self.embedding.pool(feature_maps(self.net, pixels, self.spec))
        levels = self.pyramid.split(self.pyramid.take(layers))
        gaussians = Gaussians(list(self.means), list(self.factors))
        squares = squared_distances(levels, gaussians, list(self.parents))
        return squares.sqrt().unflatten(1, self.pyramid.grid), None


def _constants(arrays: list[np.ndarray]) -> nn.ParameterList:
    copies = (torch.from_numpy(array.copy()) for array in arrays)
    return nn.ParameterList(nn.Parameter(one, requires_grad=False) for one in copies)
