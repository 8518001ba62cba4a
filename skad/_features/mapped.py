"""Patch embeddings after a learned linear map f."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skad._features.extractor import PatchExtractor
from skad._features.store import StoredExtractor
from skad._features.whitening import WhitenedExtractor


class MappedExtractor:
    """A patch extractor followed by f: what it embeds is f of the patch embeddings.

    Stands in for :class:`PatchExtractor`: what that answers, this does too.

    Parameters
    ----------
    extractor : PatchExtractor, StoredExtractor or WhitenedExtractor
    weight : ndarray of shape (E, d), float32
        Patch p becomes ``weight @ p``.

    Raises
    ------
    ValueError
        If the patches are of another length than `weight` maps.
    """

    def __init__(
        self, extractor: PatchExtractor | StoredExtractor | WhitenedExtractor, weight: np.ndarray
    ) -> None:
        if extractor.dim != weight.shape[1]:
            raise ValueError(
                f"components_ maps patches of {weight.shape[1]} values, and this backbone makes "
                f"such of {extractor.dim}: they do not belong together."
            )
        self._extractor = extractor
        # Copied, since torch warns of the read-only memory map that a worker may see.
        self._weight = torch.from_numpy(np.array(weight)).to(extractor.device)
        self.dim = len(weight)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)

    def embed(self, pixels: np.ndarray) -> torch.Tensor:
        """Embed the patches of a batch, as :meth:`PatchExtractor.embed` does, and map them by f."""
        return torch.cat([self.join(one) for one in self._extractor.pool(pixels).split(1)])

    def join(self, pooled: torch.Tensor) -> torch.Tensor:
        """Embed the patches of images, as :meth:`PatchExtractor.join` does, and map them by f."""
        patches = self._extractor.join(pooled)
        # An image alone is one matrix: its product must be the same as in training, bit by bit.
        return (
            (patches[0] @ self._weight.T)[None] if len(patches) == 1 else patches @ self._weight.T
        )
