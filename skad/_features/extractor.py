"""From a batch of pixels to patch embeddings, on one device, in fixed shapes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from skad._features.backbones import FeatureNet, load_backbone, naming_the_size
from skad._features.embedding import AdaptiveEmbedding, ConcatEmbedding
from skad._features.layers import PatchLayers
from skad._system.forks import LOADING
from skad._torch.cuda_graphs import CUDAGraphed
from skad._torch.devices import autocast, images_at_once
from skad._torch.invariance import BatchInvariant
from skad._validation.text import shortened

# Raised when cells change in their last digits: what a store holds is then made again.
ARITHMETIC = 5


@dataclass(frozen=True)
class FeatureSpec:
    """What decides the embedding of an image, apart from the weights themselves.

    Parameters
    ----------
    backbone : str or None
        timm's name; None for a network of the user's own.
    layers : tuple of int
    image_size : int
        Side of the square canvas, in pixels.
    patch_size : int
    aggregation : {"concat", "adaptive"}
    pretrain_dim, target_dim : int
        Used by ``"adaptive"`` alone.
    precision : {"float32", "bfloat16"}
    """

    backbone: str | None
    layers: tuple[int, ...]
    image_size: int
    patch_size: int
    aggregation: str
    pretrain_dim: int
    target_dim: int
    precision: str


def patch_extractor(
    spec: FeatureSpec,
    backbone: str | nn.Module,
    weights: str | os.PathLike[str] | None,
    device: torch.device,
) -> PatchExtractor:
    """Return the extractor for a specification, built once for every backbone in memory.

    Parameters
    ----------
    spec : FeatureSpec
    backbone, weights, device
        As for :func:`skad._features.load_backbone`.

    Returns
    -------
    PatchExtractor
    """
    net = load_backbone(
        backbone, weights, spec.layers, device, fuse=True, image_size=spec.image_size
    )
    with LOADING:
        if spec not in net.shared:
            net.shared[spec] = PatchExtractor(spec, net, device)
        return net.shared[spec]


class PatchExtractor:
    """Embeds the patches of images with a frozen backbone.

    Parameters
    ----------
    spec : FeatureSpec
    net : FeatureNet
    device : torch.device

    Attributes
    ----------
    grid : tuple of two ints
        Rows and columns (h, w) of the patch grid.
    dim : int
        Length d of an embedding.
    n_values : int
        Numbers that the cells of an image hold.
    digest : str
        Fingerprint of the backbone's weights.
    identity : BackboneIdentity or None
        What else a network of the user's own is recognised by.

    Raises
    ------
    ValueError
        If the image is too small for the layers, or the backbone cannot take images of this size.
    """

    def __init__(self, spec: FeatureSpec, net: FeatureNet, device: torch.device) -> None:
        self.spec = spec
        self.device = device
        self.net = net
        self.digest = net.digest
        self._graphed = CUDAGraphed(self._cells_of, device)
        self._cells_invariantly = BatchInvariant(self._cells, device)
        self._check_image_size(net)
        maps = self._first_maps()
        self.grid = (maps[0].shape[-2], maps[0].shape[-1])
        self.embedding = self._make_embedding([layer.shape[1] for layer in maps])
        cells = self.embedding.pool(maps)
        self._shapes = [layer.shape[1:] for layer in cells]
        self.n_values = sum(shape.numel() for shape in self._shapes)
        self.dim = self.embedding.join(cells).shape[-1]
        self.identity = net.identity(spec.image_size)

    def _check_image_size(self, net: FeatureNet) -> None:
        if net.strides is not None and self.spec.image_size < max(net.strides):
            raise ValueError(
                f"image_size={self.spec.image_size} is smaller than the stride {max(net.strides)} of "
                f"the deepest layer of layers={shortened(repr(self.spec.layers))}: nothing would be "
                "left of the image. Use a larger image_size or shallower layers."
            )

    def _first_maps(self) -> list[torch.Tensor]:
        size = self.spec.image_size
        black = torch.zeros((1, size, size, 3), dtype=torch.uint8, device=self.device)
        with naming_the_size(size):
            return self._maps(black)

    def _make_embedding(self, channels: list[int]) -> ConcatEmbedding | AdaptiveEmbedding:
        spec = self.spec
        if spec.aggregation == "concat":
            return ConcatEmbedding(spec.patch_size)
        return AdaptiveEmbedding(
            channels, spec.patch_size, spec.pretrain_dim, spec.target_dim, device=self.device
        )

    def _maps(self, batch: torch.Tensor) -> list[torch.Tensor]:
        with torch.inference_mode(), autocast(self.device, self.spec.precision):
            return [layer.float() for layer in self.net(batch)]

    def cells(self, pixels: np.ndarray) -> torch.Tensor:
        """Pooled features of a batch, each layer at its own resolution.

        On the CPU an image has bitwise the same cells in every batch.

        Parameters
        ----------
        pixels : ndarray of shape (B, S, S, 3)
            uint8, or float32 in 0..1.

        Returns
        -------
        torch.Tensor of shape (B, n_values), float32, on the extractor's device
        """
        return self._cells_invariantly(pixels)

    def _cells(self, pixels: np.ndarray) -> torch.Tensor:
        (cells,) = self._graphed(torch.from_numpy(pixels))
        return cells

    def _cells_of(self, batch: torch.Tensor) -> tuple[torch.Tensor]:
        maps = self._maps(batch)
        with torch.inference_mode():
            pooled = [layer.flatten(1) for layer in self.embedding.pool(maps)]
            return (torch.cat(pooled, dim=1),)

    def join(self, cells: torch.Tensor) -> torch.Tensor:
        """Patch embeddings of images.

        Parameters
        ----------
        cells : torch.Tensor of shape (B, n_values), float32
            On the CPU one image at a time gives the same bits in every batch; interpolation may round
            otherwise for several.

        Returns
        -------
        torch.Tensor of shape (B, h * w, d), float32
            Row-major over the grid.
        """
        with torch.inference_mode():
            return self.embedding.join(self._split(cells)).flatten(1, 2)

    def join_each(self, cells: torch.Tensor) -> Iterator[torch.Tensor]:
        """Join the patches of image after image, (h * w, d), as many at once as the device likes."""
        for some in cells.split(images_at_once(self.device, max(1, len(cells)))):
            yield from self.join(some)

    def layers(self, cells: torch.Tensor, mask: np.ndarray) -> PatchLayers | None:
        """Prepare products with the patches of one image.

        Parameters
        ----------
        cells : torch.Tensor of shape (n_values,), float32
        mask : ndarray of shape (h, w), bool
            Patches that count.

        Returns
        -------
        PatchLayers or None
            None where products with joined patches cost no more.
        """
        parts = self._split(cells[None])
        layers = [part[0] for part in parts]
        if not PatchLayers.pay(layers, self.dim):
            return None
        some = None if mask.all() else torch.from_numpy(mask.ravel())
        return PatchLayers(layers, self.embedding.starts(parts), some)

    def _split(self, cells: torch.Tensor) -> list[torch.Tensor]:
        """Layers of images, (B, h_j, w_j, C_j)."""
        parts = cells.split([shape.numel() for shape in self._shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def embed(self, pixels: np.ndarray) -> torch.Tensor:
        """Patch embeddings of a batch, both steps in one.

        Parameters
        ----------
        pixels : ndarray of shape (B, S, S, 3)

        Returns
        -------
        torch.Tensor of shape (B, h * w, d), float32, on the extractor's device
        """
        return torch.stack(list(self.join_each(self.cells(pixels))))
