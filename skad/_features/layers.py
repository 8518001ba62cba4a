"""Products with the patches of an image, taken layer by layer before layers are aligned."""

from __future__ import annotations

import numpy as np
import torch

from skad._features.embedding import align
from skad._features.extractor import PatchExtractor
from skad._features.mapped import MappedExtractor
from skad._features.store import StoredExtractor
from skad._features.whitening import WhitenedExtractor

# Fraction of the multiplications of whole patches above which nothing would be won.
_WORTH_IT = 0.75


def patch_layers(
    extractor: PatchExtractor | StoredExtractor | WhitenedExtractor | MappedExtractor,
    pooled: torch.Tensor,
    mask: np.ndarray,
) -> PatchLayers | None:
    """Prepare products with the patches of one image.

    Parameters
    ----------
    extractor : PatchExtractor
    pooled : torch.Tensor of shape (n_values,), float32
        From :meth:`PatchExtractor.pool`.
    mask : ndarray of shape (h, w), bool
        Patches that count.

    Returns
    -------
    PatchLayers or None
        None where products with joined patches cost no more; and after f, whose results are fewer values
        than the layers hold.
    """
    if isinstance(extractor, MappedExtractor):
        return None
    layers = [part[0] for part in extractor.split(pooled[None])]
    if not PatchLayers.pay(layers, extractor.dim):
        return None
    some = None if mask.all() else torch.from_numpy(mask.ravel())
    return PatchLayers(layers, extractor.starts, some)


class PatchLayers:
    """The patches of one image as sums of layers, each at its own resolution.

    Bilinear alignment and the product with a vector are both linear: aligned products are products with
    aligned features. Of two layers, the deeper has a quarter of the positions and two thirds of the
    channels, so that this way takes half of the multiplications.

    Parameters
    ----------
    layers : list of torch.Tensor of shape (h_j, w_j, C_j), float32
        The first fixes the grid.
    starts : list of int
        Where the values of each layer begin in a patch. They may overlap: values are added.
    mask : torch.Tensor of shape (h * w,), bool, or None
        Patches that count; None: all.

    Examples
    --------
    >>> layers = PatchLayers([torch.ones(2, 2, 1), torch.full((1, 1, 1), 3.0)], [0, 1], None)
    >>> layers.products(torch.tensor([[1.0, 2.0]]), torch.zeros(1))[:, 0]
    tensor([-14., -14., -14., -14.])
    """

    def __init__(
        self, layers: list[torch.Tensor], starts: list[int], mask: torch.Tensor | None
    ) -> None:
        self._layers, self._starts, self._mask = layers, starts, mask

    @staticmethod
    def pay(layers: list[torch.Tensor], dim: int) -> bool:
        """Whether products are cheaper this way than with patches of length `dim`."""
        height, width, _ = layers[0].shape
        multiplications = sum(layer.numel() for layer in layers)
        on_cpu = layers[0].device.type == "cpu"
        return on_cpu and multiplications <= _WORTH_IT * height * width * dim

    def centred(self, centre: torch.Tensor) -> PatchLayers:
        """Subtract a vector of shape (d,) from every patch."""
        left = centre.clone()
        layers = []
        for layer, start in zip(self._layers, self._starts, strict=True):
            part = left[start : start + layer.shape[-1]]
            layers.append(layer - part)
            # A value to which two layers add is centred once.
            part.zero_()
        return PatchLayers(layers, self._starts, self._mask)

    def products(self, points: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Compute ``bias - 2 patches @ points.T``.

        Parameters
        ----------
        points : torch.Tensor of shape (m, d)
        bias : torch.Tensor of shape (m,)

        Returns
        -------
        torch.Tensor of shape (n_patches, m)
        """
        grid = self._layers[0].shape[:2]
        pairs = list(zip(self._layers, self._starts, strict=True))
        # Coarse layers first, so that the bias goes in where it costs least: weights of the alignment
        # sum to 1. The finest then adds in place.
        total = None
        for layer, start in reversed(pairs):
            values, columns = layer.flatten(0, 1), points[:, start : start + layer.shape[-1]].T
            if total is not None and layer.shape[:2] == grid:
                total.addmm_(values, columns, alpha=-2)
                continue
            own = torch.addmm(
                bias if total is None else bias.new_zeros(1), values, columns, alpha=-2
            )
            aligned = align(own.view(1, *layer.shape[:2], -1), grid).reshape(-1, len(points))
            total = aligned if total is None else total.add_(aligned)
        assert total is not None
        return total if self._mask is None else total[self._mask]
