"""Features that were computed before stand in for a backbone: images, to this extractor, are their maps.

Patches come with all layers brought to one grid, while whitening acts on each layer at its own
resolution. Bilinear enlarging loses nothing, so it is undone where the layers' shapes are known: what
follows then finds the feature maps that the backbone has made, up to rounding.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from skad._features.embedding import ConcatEmbedding
from skad._features.extractor import FeatureSpec, PatchExtractor
from skad._features.feature_net import FeatureNet

PRECOMPUTED = "precomputed"
# Of the length of a layer's values, what may be lost on the way to its own resolution and back: far more
# than float16 rounds, far less than of values that were not enlarged from it.
_LEFT_OVER = 0.01


class PrecomputedExtractor(PatchExtractor):
    """Takes the features of patches apart, as if a backbone had just made them.

    Parameters
    ----------
    spec : FeatureSpec
        Its layers are the shapes (h_j, w_j, C_j) of feature maps; the first fixes the grid.
    device : torch.device
    """

    def __init__(self, spec: FeatureSpec, device: torch.device) -> None:
        shapes = [torch.Size(shape) for shape in spec.layers]
        starts = [0, *np.cumsum([shape[-1] for shape in shapes]).tolist()]
        network = FeatureNet(nn.Identity(), digest=f"{PRECOMPUTED} {spec.layers}")
        super().__init__(spec, network, device, ConcatEmbedding(1), shapes, starts[:-1], starts[-1])

    def pool(self, pixels: np.ndarray) -> torch.Tensor:
        """Bring each layer to its own resolution.

        Parameters
        ----------
        pixels : ndarray of shape (B, h, w, d), float32
            Features of patches.

        Returns
        -------
        torch.Tensor of shape (B, n_values), float32, on the extractor's device
            On the CPU an image has bitwise the same ones in every batch.
        """
        maps = torch.from_numpy(pixels).to(self.device)
        if self.n_values == maps[0].numel():
            return maps.flatten(1)
        # A product rounds by its shape: one image at a time.
        return torch.cat([self._reduced(one) for one in maps.split(1)])

    def _reduced(self, maps: torch.Tensor) -> torch.Tensor:
        layers = []
        parts = maps.split(self.channels, dim=-1)
        for part, (height, width, _) in zip(parts, self._shapes, strict=True):
            if (height, width) != self.grid:
                rows = _reducing(self.grid[0], height).to(maps.device)
                columns = _reducing(self.grid[1], width).to(maps.device)
                part = torch.einsum("ih,jw,bhwc->bijc", rows, columns, part)
            layers.append(part.flatten(1))
        return torch.cat(layers, dim=1)

    def fits(self, one: np.ndarray) -> bool:
        """Whether features, (h, w, d) float32, are layers of these shapes that were enlarged."""
        given = torch.from_numpy(one).flatten(0, 1).to(self.device)
        left_over = given - self.join(self.pool(one[None]))[0]
        parts = zip(given.split(self.channels, 1), left_over.split(self.channels, 1), strict=True)
        return all(left.norm() <= _LEFT_OVER * part.norm() for part, left in parts)


@lru_cache(maxsize=32)
def _reducing(length: int, own: int) -> torch.Tensor:
    """(own, length) matrix that undoes bilinear enlarging along one side."""
    enlarging = interpolate(
        torch.eye(own, dtype=torch.float64)[None], size=length, mode="linear", align_corners=False
    )[0].T
    return torch.linalg.pinv(enlarging).float()
