"""From a batch of pixels to patch embeddings, on one device, in fixed shapes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from skad._common.forks import LOADING
from skad._common.text import shortened
from skad._features.backbones import load_backbone
from skad._features.defaults import default_normalize
from skad._features.embedding import AdaptiveEmbedding, ConcatEmbedding
from skad._features.feature_net import FeatureNet, naming_the_size
from skad._features.identity import BackboneIdentity
from skad._images import Size, height_and_width
from skad._torch.accelerators import recorded
from skad._torch.devices import autocast
from skad._torch.invariance import BatchInvariant
from skad.exceptions import FeatureError

# Raised when pooled feature maps change in their last digits: what a store holds is then made again.
ARITHMETIC = 5
# Squares of larger numbers, and sums of them, are not finite in float32.
_LARGEST = 1e15


@dataclass(frozen=True)
class FeatureSpec:
    """What decides the embedding of an image, apart from the weights themselves.

    Parameters
    ----------
    backbone : str or None
        timm's name; None for a network of the user's own.
    layers : tuple of int
        Of features that were computed before, tuple of shapes (h_j, w_j, C_j).
    image_size : int or tuple of two ints
        Side of a square canvas, or height and width, in pixels.
    patch_size : int
    aggregation : {"concat", "adaptive"}
    pretrain_dim, target_dim : int
        Used by ``"adaptive"`` alone.
    precision : {"float32", "bfloat16"}
    normalize : bool, default=False
        Whether the vectors of every layer are brought to length 1, after a transformer's final norm.
    """

    backbone: str | None
    layers: tuple[Any, ...]
    image_size: Size
    patch_size: int
    aggregation: str
    pretrain_dim: int
    target_dim: int
    precision: str
    normalize: bool = False

    @property
    def final_norm(self) -> bool:
        """Whether the layers pass a transformer's final norm, whose weights are then in use."""
        return self.normalize and self.backbone is not None and default_normalize(self.backbone)


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

    Raises
    ------
    ValueError
        If the image is too small for the layers, or the backbone cannot take images of this size.
    """
    net = load_backbone(
        backbone,
        weights,
        spec.layers,
        device,
        fuse=True,
        image_size=spec.image_size,
        final_norm=spec.final_norm,
    )
    with LOADING:
        if spec not in net.shared:
            net.shared[spec] = _built(spec, net, device)
        return net.shared[spec]


def _built(spec: FeatureSpec, net: FeatureNet, device: torch.device) -> PatchExtractor:
    """Ask the network about a black image what an extractor must know of its feature maps."""
    size = spec.image_size
    if net.strides is not None and min(height_and_width(size)) < max(net.strides):
        raise ValueError(
            f"image_size={size} is smaller than the stride {max(net.strides)} of the deepest layer of "
            f"layers={shortened(repr(spec.layers))}: nothing would be left of the image. Use a larger "
            "image_size or shallower layers."
        )
    black = torch.zeros((1, *height_and_width(size), 3), dtype=torch.uint8, device=device)
    with torch.inference_mode():
        with naming_the_size(size), autocast(device, spec.precision):
            maps = feature_maps(net, black, spec)
        embedding = _make_embedding(spec, [layer.shape[1] for layer in maps], device)
        pooled = embedding.pool(maps)
        dim = embedding.join(pooled).shape[-1]
    shapes = [layer.shape[1:] for layer in pooled]
    return PatchExtractor(spec, net, device, embedding, shapes, embedding.starts(pooled), dim)


def feature_maps(net: FeatureNet, batch: torch.Tensor, spec: FeatureSpec) -> list[torch.Tensor]:
    """Feature maps (B, C_j, h_j, w_j) of a batch."""
    maps = [layer.float() for layer in net(batch)]
    return [F.normalize(layer, dim=1) for layer in maps] if spec.normalize else maps


def _make_embedding(
    spec: FeatureSpec, channels: list[int], device: torch.device
) -> ConcatEmbedding | AdaptiveEmbedding:
    if spec.aggregation == "concat":
        return ConcatEmbedding(spec.patch_size)
    return AdaptiveEmbedding(
        channels, spec.patch_size, spec.pretrain_dim, spec.target_dim, device=device
    )


class PatchExtractor:
    """Embeds the patches of images with a frozen backbone.

    Embedding has two steps. `pool` makes feature maps in which every position is a mean over its
    neighbourhood, each layer at its own resolution: half as many numbers as the patches, so that these
    are what is kept in memory and in stores. `join` makes patches of them, in a fraction of a
    millisecond.

    Parameters
    ----------
    spec : FeatureSpec
    net : FeatureNet
    device : torch.device
    embedding : ConcatEmbedding or AdaptiveEmbedding
    shapes : list of torch.Size
        (h_j, w_j, C_j) of each layer's pooled feature map; the first fixes the patch grid.
    starts : list of int
        Where the values of each layer begin in a patch.
    dim : int
        Length d of a patch embedding.

    Attributes
    ----------
    grid : tuple of two ints
        Rows and columns (h, w) of the patch grid.
    dim : int
    channels, starts : list of int
        Channels C_j of each layer's pooled feature map, and where they begin in a patch.
    layer_shapes : list of tuple of three ints
        (h_j, w_j, C_j) of each layer's pooled feature map.
    n_values : int
        Numbers in the pooled feature maps of one image.
    digest : str
        Fingerprint of the backbone's weights.
    identity : BackboneIdentity or None
        What else a network of the user's own is recognised by.
    smallest_side : int
        Pixels below which an image is too small for the layers.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        net: FeatureNet,
        device: torch.device,
        embedding: ConcatEmbedding | AdaptiveEmbedding,
        shapes: list[torch.Size],
        starts: list[int],
        dim: int,
    ) -> None:
        self.spec, self.net, self.device, self.embedding = spec, net, device, embedding
        self.grid, self.dim, self._shapes = (shapes[0][0], shapes[0][1]), dim, shapes
        self.channels, self.starts = [shape[-1] for shape in shapes], starts
        self.n_values = sum(shape.numel() for shape in shapes)
        self.digest = net.digest
        self.smallest_side = 1 if net.strides is None else max(net.strides)
        pooled = recorded(self._pooled, device)
        self._pool = BatchInvariant(lambda pixels: pooled(torch.from_numpy(pixels)), device)

    @property
    def identity(self) -> BackboneIdentity | None:
        """What a network of the user's own is recognised by, beside its weights."""
        return self.net.identity(self.spec.image_size)

    @property
    def layer_shapes(self) -> list[tuple[int, int, int]]:
        """Shape (h_j, w_j, C_j) of each layer's pooled feature map."""
        return [(int(h), int(w), int(n)) for h, w, n in self._shapes]

    def pool(self, pixels: np.ndarray) -> torch.Tensor:
        """Pooled feature maps of a batch.

        On the CPU an image has bitwise the same ones in every batch.

        Parameters
        ----------
        pixels : ndarray of shape (B, H, W, 3)
            uint8, or float32 in 0..1.

        Returns
        -------
        torch.Tensor of shape (B, n_values), float32, on the extractor's device
        """
        return self._pool(pixels)[0]

    def _pooled(self, batch: torch.Tensor) -> tuple[torch.Tensor]:
        with torch.inference_mode():
            with autocast(self.device, self.spec.precision):
                maps = feature_maps(self.net, batch, self.spec)
            return (torch.cat([layer.flatten(1) for layer in self.embedding.pool(maps)], dim=1),)

    def join(self, pooled: torch.Tensor) -> torch.Tensor:
        """Patch embeddings of images.

        Parameters
        ----------
        pooled : torch.Tensor of shape (B, n_values), float32
            On the CPU one image at a time gives the same bits in every batch; interpolation may round
            otherwise for several.

        Returns
        -------
        torch.Tensor of shape (B, h * w, d), float32
            Row-major over the grid.
        """
        with torch.inference_mode():
            return self.embedding.join(self.split(pooled)).flatten(1, 2)

    def split(self, pooled: torch.Tensor) -> list[torch.Tensor]:
        """Take pooled feature maps apart.

        Parameters
        ----------
        pooled : torch.Tensor of shape (B, n_values)

        Returns
        -------
        list of torch.Tensor of shape (B, h_j, w_j, C_j)
        """
        parts = pooled.split([shape.numel() for shape in self._shapes], dim=1)
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
        return torch.cat([self.join(one) for one in self.pool(pixels).split(1)])


def inside(patches: torch.Tensor, mask: np.ndarray) -> torch.Tensor:
    """Leave out the patches of an image that lie in padding."""
    return patches if mask.all() else patches[torch.from_numpy(mask.ravel())]


def check_features(
    pooled: torch.Tensor, start: int, owners: Sequence[int] | np.ndarray | None = None
) -> None:
    """Refuse features that are not finite or too large for distances: NaN would never be the farthest.

    Parameters
    ----------
    pooled : torch.Tensor of shape (B, n_values)
        Features of each image, or the largest of them alone.
    start : int
        Number of the first image.
    owners : sequence of int, default=None
        Where rows are tiles, which `start` counts then: the image of every tile.

    Raises
    ------
    FeatureError
        For the first image at fault.
    """
    largest = pooled.abs().amax(dim=1)
    useless = ~(largest < _LARGEST)
    if useless.any():
        i = int(useless.nonzero()[0, 0])
        raise FeatureError(float(largest[i]), start + i if owners is None else owners[start + i])
