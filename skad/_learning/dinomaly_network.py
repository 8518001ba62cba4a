"""Dinomaly's network: a frozen transformer, a noisy bottleneck, and a decoder that cannot focus.

The tokens of several of the encoder's layers are averaged, disturbed by dropout, and passed through
blocks of linear attention. Of a group of layers together, not of each alone, the decoder reconstructs
the features; what it has not learned to reconstruct was not in the training images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from skad._torch.devices import upcast

Maps = list[torch.Tensor]
Tokens = list[torch.Tensor]
# Width of an attention head, as in the transformers that are reconstructed.
_HEAD_WIDTH = 64
# Of the public code, for layer norms.
_EPS = 1e-8


class Dropout(nn.Module):
    """Dropout that draws from a generator of its own.

    Parameters
    ----------
    p : float
        Share of values that become 0, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        drawn = torch.rand(x.shape, generator=self.generator, device=x.device)
        return x * (drawn >= self.p).to(x.dtype) / (1 - self.p)


class LinearAttention(nn.Module):
    """Attention whose weights are products of elu(q) + 1 and elu(k) + 1: it spreads over all tokens.

    Parameters
    ----------
    width : int
    n_heads : int
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, width = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.n_heads, width // self.n_heads)
        # Half precision has too few digits for the sums over all tokens.
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = upcast(qkv).permute(2, 0, 3, 1, 4)
            q, k = F.elu(q) + 1, F.elu(k) + 1
            found = (q @ (k.transpose(-2, -1) @ v)) / (q @ k.sum(dim=-2)[..., None])
        return self.proj(found.transpose(1, 2).reshape(b, n, width).to(x.dtype))


class Mlp(nn.Module):
    """Two linear layers with GELU between them, and dropout before, between and after.

    Parameters
    ----------
    width : int
        Four times as wide inside.
    p : float, default=0.0
        Of the dropout.
    """

    def __init__(self, width: int, p: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.noise = Dropout(p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.noise(self.fc2(self.noise(F.gelu(self.fc1(self.noise(x))))))


class Block(nn.Module):
    """A transformer's block with linear attention.

    Parameters
    ----------
    width : int
    n_heads : int
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = LinearAttention(width, n_heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = Mlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DinomalyNetwork(nn.Module):
    """Bottleneck and decoder, one block for each layer of the encoder, around the frozen encoder.

    Parameters
    ----------
    encode : callable
        Maps pixels to the tokens of n_layers layers, (B, p + h * w, width) each, and to the grid (h, w):
        p tokens that stand for no place come first. Not part of the state dict.
    width : int
        Of tokens.
    n_layers : int
    n_groups : int
        Groups of neighbouring layers whose means are reconstructed.
    dropout : float
        Share of values that the bottleneck drops in training, three times over.
    """

    def __init__(
        self,
        encode: Callable[[torch.Tensor], tuple[Tokens, tuple[int, int]]],
        width: int,
        n_layers: int,
        n_groups: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self._encode = encode
        self.groups = _groups(n_layers, n_groups)
        self.bottleneck = Mlp(width, dropout)
        self.decoder = nn.ModuleList(
            Block(width, max(1, width // _HEAD_WIDTH)) for _ in range(n_layers)
        )

    def forward(self, pixels: torch.Tensor) -> tuple[Maps, Maps]:
        """Features of the encoder, and their reconstructions.

        Parameters
        ----------
        pixels : torch.Tensor of shape (B, H, W, 3)

        Returns
        -------
        targets, outputs : lists of torch.Tensor of shape (B, width, h, w)
            One per group, the shallowest layers first.
        """
        with torch.no_grad():
            tokens, grid = self._encode(pixels)
        return self.reconstruct(tokens, grid)

    def reconstruct(self, tokens: Tokens, grid: tuple[int, int]) -> tuple[Maps, Maps]:
        """Reconstruct the encoder's tokens.

        Parameters
        ----------
        tokens : list of torch.Tensor of shape (B, p + h * w, width)
        grid : (h, w)

        Returns
        -------
        targets, outputs : lists of torch.Tensor of shape (B, width, h, w)
        """
        x = self.bottleneck(_mean(tokens))
        decoded = []
        for block in self.decoder:
            x = block(x)
            decoded.append(x)
        # The last block answers the first layer.
        decoded = decoded[::-1]
        targets, outputs = (
            [_as_map(_mean([found[i] for i in group]), grid) for group in self.groups]
            for found in (tokens, decoded)
        )
        return targets, outputs


def build_dinomaly(
    encode: Callable[[torch.Tensor], tuple[Tokens, tuple[int, int]]],
    width: int,
    n_layers: int,
    n_groups: int,
    dropout: float,
    generator: torch.Generator | None,
) -> DinomalyNetwork:
    """Build a network whose layers are initialised as in the authors' code.

    Weights of linear layers: normal with a deviation of 0.01, cut off at three of them; biases 0.

    Parameters
    ----------
    encode, width, n_layers, n_groups, dropout
        As for :class:`DinomalyNetwork`.
    generator : torch.Generator or None
        On the CPU; torch's global generator is left alone. None: layers hold arbitrary numbers, which a
        state dict replaces.

    Returns
    -------
    DinomalyNetwork
        On the CPU.
    """
    # Without storage, hence without a draw from the global generator.
    with torch.device("meta"):
        network = DinomalyNetwork(encode, width, n_layers, n_groups, dropout)
    network.to_empty(device="cpu")
    if generator is not None:
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.01, a=-0.03, b=0.03, generator=generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
    return network


def _groups(n_layers: int, n_groups: int) -> list[range]:
    """Numbers of the layers of each group; groups of one size, as far as that goes."""
    edges = [n_layers * i // n_groups for i in range(n_groups + 1)]
    return [range(*pair) for pair in pairwise(edges)]


def _mean(tokens: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(tokens)).mean(dim=0)


def _as_map(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Lay the tokens of places out on their grid; the others, which come first, are left out."""
    h, w = grid
    return tokens[:, tokens.shape[1] - h * w :].transpose(1, 2).unflatten(2, (h, w))
