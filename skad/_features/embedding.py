"""Patch embedding: feature maps of several layers -> one vector per position of the patch grid.

Every step of PatchCore's embedding is linear: the p x p neighbourhood, the adaptive pooling along
the flattened (channel, y, x) axis, the bilinear alignment of deeper layers, the final pooling over
the stacked layers. Linear operations on channels and on space commute, so all pooling is folded
into one sparse operator per layer that runs at the layer's own resolution, before the alignment. That
takes a ninth of the memory of unfolding (p = 3) and gives the same numbers.

An embedding so has two steps: `pool` makes pooled feature maps, each layer at its own resolution, and
`join` makes patches of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


def pooling_bins(n: int, m: int) -> list[tuple[int, int]]:
    """Half-open bins of one-dimensional adaptive average pooling from `n` values to `m`.

    Output i is the mean of entries ``floor(i n / m)`` to ``ceil((i + 1) n / m) - 1``; bins overlap
    when n / m is not an integer.

    Examples
    --------
    >>> pooling_bins(10, 4)
    [(0, 3), (2, 5), (5, 8), (7, 10)]
    """
    return [(i * n // m, -((-(i + 1) * n) // m)) for i in range(m)]


class ConcatEmbedding:
    """Paper-style embedding: p x p mean per channel, layers joined by concatenation.

    Parameters
    ----------
    patch_size : int
        p, odd. The neighbourhood is zero padded and always divided by p^2, as in the official code.
    """

    def __init__(self, patch_size: int) -> None:
        self.patch_size = patch_size

    def pool(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Average over neighbourhoods.

        Parameters
        ----------
        maps : list of torch.Tensor of shape (B, C_j, h_j, w_j)
            Shallow to deep; the first fixes the grid.

        Returns
        -------
        list of torch.Tensor of shape (B, h_j, w_j, C_j)
        """
        return [_mean_around(layer, self.patch_size).permute(0, 2, 3, 1) for layer in maps]

    def starts(self, pooled: list[torch.Tensor]) -> list[int]:
        """Where the values of each layer begin in a patch."""
        return [0, *np.cumsum([layer.shape[-1] for layer in pooled])[:-1].tolist()]

    def join(self, pooled: list[torch.Tensor]) -> torch.Tensor:
        """Align the layers, and lay their values side by side.

        Parameters
        ----------
        pooled : list of torch.Tensor
            From `pool`.

        Returns
        -------
        torch.Tensor of shape (B, h, w, sum C_j)
        """
        grid = pooled[0].shape[1:3]
        return torch.cat([align(layer, grid) for layer in pooled], dim=-1)


def _mean_around(layer: torch.Tensor, size: int) -> torch.Tensor:
    """Average over size x size neighbourhoods, zeros around the map counted in."""
    if size == 1:
        return layer
    if not layer.is_cuda:
        return F.avg_pool2d(layer, size, 1, size // 2)
    # The same in float32, several times as fast as the pooling of channels that lie last.
    channels = layer.shape[1]
    kernels = layer.new_full((channels, 1, size, size), size**-2)
    return F.conv2d(layer, kernels, padding=size // 2, groups=channels)


def align(layer: torch.Tensor, grid: torch.Size) -> torch.Tensor:
    """Bring a layer to a grid: (B, h_j, w_j, C) -> (B, h, w, C), bilinearly."""
    if layer.shape[1:3] == grid:
        return layer
    planes = layer.permute(0, 3, 1, 2)
    aligned = F.interpolate(planes, size=grid, mode="bilinear", align_corners=False)
    return aligned.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class _LayerOperator:
    """One layer's part of the adaptive embedding: outputs ``start`` to ``start + T_j``.

    Term i adds, to every output t, input channel ``channels[i, t]`` filtered with the p x p
    ``kernels[i, t]``. An output touches the few channels that its bins straddle.
    """

    start: int
    channels: torch.Tensor  # (n_terms, T_j) int64
    kernels: torch.Tensor  # (n_terms, T_j, 1, p, p)

    def __call__(self, layer: torch.Tensor) -> torch.Tensor:
        padding = self.kernels.shape[-1] // 2
        terms = [
            F.conv2d(layer[:, channels], kernels, padding=padding, groups=len(channels))
            for channels, kernels in zip(self.channels, self.kernels, strict=True)
        ]
        return sum(terms[1:], start=terms[0])


class AdaptiveEmbedding:
    """The official code's embedding: adaptive pooling to P values per layer, then to T in all.

    Parameters
    ----------
    channels : sequence of int
        Channels C_j of each layer, shallow to deep.
    patch_size : int
        p, odd; zero padding of (p - 1) / 2.
    pretrain_dim, target_dim : int
        P and T of the official code. Any positive values: with P larger than C_j p^2 values repeat.
    dtype : torch.dtype, default=torch.float32
    device : torch.device or None

    Notes
    -----
    The official PatchCore code unfolds p x p neighbourhoods, aligns every entry bilinearly, pools
    the flat (channel, y, x) vector of each layer to P, stacks the layers and pools to T.
    """

    def __init__(
        self,
        channels: list[int],
        patch_size: int,
        pretrain_dim: int,
        target_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        self.target_dim = target_dim
        final = pooling_bins(pretrain_dim * len(channels), target_dim)
        self.operators = [
            _layer_operator(c, j, patch_size, pretrain_dim, final, dtype, device)
            for j, c in enumerate(channels)
        ]

    def pool(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Pool; shapes as for :class:`ConcatEmbedding`, with T_j values per position of layer j."""
        pairs = zip(self.operators, maps, strict=True)
        return [operator(layer).permute(0, 2, 3, 1) for operator, layer in pairs]

    def starts(self, pooled: list[torch.Tensor]) -> list[int]:
        """Where the values of each layer begin in a patch; the next may begin before they end."""
        return [operator.start for operator in self.operators]

    def join(self, pooled: list[torch.Tensor]) -> torch.Tensor:
        """Align the layers, and add them up to T values per patch."""
        batch, height, width, _ = pooled[0].shape
        out = pooled[0].new_zeros(batch, height, width, self.target_dim)
        for operator, layer in zip(self.operators, pooled, strict=True):
            stop = operator.start + layer.shape[-1]
            # Added, not assigned: a bin of the final pooling may straddle two layers.
            out[..., operator.start : stop] += align(layer, pooled[0].shape[1:3])
        return out


def _layer_operator(
    n_channels: int,
    layer: int,
    patch_size: int,
    pretrain_dim: int,
    final: list[tuple[int, int]],
    dtype: torch.dtype,
    device: torch.device | None,
) -> _LayerOperator:
    first, last = layer * pretrain_dim, (layer + 1) * pretrain_dim
    outputs = [t for t, (a, b) in enumerate(final) if a < last and b > first]
    layer_bins = pooling_bins(n_channels * patch_size**2, pretrain_dim)
    rows = [_output_weights(final[t], first, last, layer_bins) for t in outputs]
    area = patch_size**2
    touched = [sorted({entry // area for entry in row}) for row in rows]
    n_terms = max(len(channels) for channels in touched)
    channels = np.zeros((n_terms, len(outputs)), dtype=np.int64)
    kernels = np.zeros((n_terms, len(outputs), area))
    for t, (row, own) in enumerate(zip(rows, touched, strict=True)):
        channels[: len(own), t] = own
        for entry, weight in row.items():
            kernels[own.index(entry // area), t, entry % area] = weight
    shape = (n_terms, len(outputs), 1, patch_size, patch_size)
    return _LayerOperator(
        start=outputs[0],
        channels=torch.from_numpy(channels).to(device),
        kernels=torch.from_numpy(kernels.reshape(shape)).to(device=device, dtype=dtype),
    )


def _output_weights(
    stacked: tuple[int, int], first: int, last: int, layer_bins: list[tuple[int, int]]
) -> dict[int, float]:
    """Weights of one output over the flat (channel, y, x) entries of one layer."""
    weights: dict[int, float] = {}
    start, stop = stacked
    for pooled in range(max(start, first), min(stop, last)):
        a, b = layer_bins[pooled - first]
        for entry in range(a, b):
            weights[entry] = weights.get(entry, 0.0) + 1 / ((stop - start) * (b - a))
    return weights
