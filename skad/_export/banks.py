"""Scores of patches by their distances to a memory bank, as tensors that can be exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from skad._bank import MemoryBank
from skad._bank.neighbourhoods import Neighbourhoods
from skad._export.networks import exportable
from skad._export.products import LayerProducts
from skad._export.rendering import Seen
from skad._export.tiles import Tiles
from skad._features import PatchExtractor
from skad._features.embedding import ConcatEmbedding
from skad._features.extractor import feature_maps
from skad._scoring.plain import Rule

# Bank vectors of one product: what all patches of an image make of them stays in cache.
_BLOCK = 512
# Of which the lowest is found before that of all; banks are filled up to whole groups.
_GROUP = 32

# What pads norms: farther than all, and finite, since 0 times it is 0 where products are aligned.
_FAR = 1e30

Compared = Callable[[int], torch.Tensor]
"""Maps the number of a block to ``|p|^2 - 2 q.p``, (n, m); without ``|q|^2`` the order is the same."""


class PatchEmbedding(nn.Module):
    """Embeds the patches of images.

    Parameters
    ----------
    extractor : PatchExtractor
        On the CPU.
    whitening : sequence of ndarray of shape (C_j, C_j)
        One per layer, or none.
    f : ndarray of shape (E, d) or None
        ReConPatch's linear map.
    """

    def __init__(
        self, extractor: PatchExtractor, whitening: Sequence[np.ndarray], f: np.ndarray | None
    ) -> None:
        super().__init__()
        self.net, self.spec = exportable(extractor.net), extractor.spec
        self.embedding, self.starts, self.dim = (
            extractor.embedding,
            extractor.starts,
            extractor.dim,
        )
        # Symmetric: a row of values times such a matrix is the matrix times a column of them.
        self.whitening = nn.ParameterList(_kernel(matrix) for matrix in whitening)
        self.f = nn.ParameterList([] if f is None else [_kernel(f)])

    def layers(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Pool images (B, H, W, 3), float32 in 0..1, to layers (B, C_j, h_j, w_j)."""
        maps = feature_maps(self.net, pixels, self.spec)
        layers = [layer.permute(0, 3, 1, 2) for layer in self.embedding.pool(maps)]
        if not len(self.whitening):
            return layers
        pairs = zip(layers, self.whitening, strict=True)
        return [F.conv2d(layer, kernel) for layer, kernel in pairs]

    def forward(self, layers: list[torch.Tensor]) -> torch.Tensor:
        """Join layers to embedded patches (B, d, h, w)."""
        grid = layers[0].shape[2:]
        aligned = [layers[0], *(_aligned(layer, grid) for layer in layers[1:])]
        joined = self._joined(aligned)
        return F.conv2d(joined, self.f[0]) if len(self.f) else joined

    def _joined(self, aligned: list[torch.Tensor]) -> torch.Tensor:
        if isinstance(self.embedding, ConcatEmbedding):
            return torch.cat(aligned, dim=1)
        # A value may be a part of two layers: they are added.
        widened = [
            F.pad(layer, (0, 0, 0, 0, start, self.dim - start - layer.shape[1]))
            for layer, start in zip(aligned, self.starts, strict=True)
        ]
        return sum(widened[1:], start=widened[0])


def _kernel(matrix: np.ndarray) -> nn.Parameter:
    kernel = torch.from_numpy(np.array(matrix, dtype=np.float32))[:, :, None, None]
    return nn.Parameter(kernel, requires_grad=False)


def _aligned(layer: torch.Tensor, grid: torch.Size) -> torch.Tensor:
    if layer.shape[2:] == grid:
        return layer
    return F.interpolate(layer, size=grid, mode="bilinear", align_corners=False)


class BankDistances(nn.Module):
    """Scores patches by their distances to the vectors of a bank.

    Nearest vectors are proposed by a product, and their distances are measured by differences: the
    distance of a bank vector to itself is 0. Both take the same centred vectors, of which a runtime
    makes blocks when it reads the file.

    Parameters
    ----------
    bank : MemoryBank
    rule : Rule
    """

    def __init__(self, bank: MemoryBank, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        exact = bank.exact(torch.device("cpu"))
        self.register_buffer("centre", exact.centre.clone())
        missing = -len(exact.points) % _GROUP
        self._hold([F.pad(exact.points, (0, 0, 0, missing))])
        self.register_buffer("norms", F.pad(exact.norms, (0, missing), value=_FAR))
        if rule.b is not None:
            around = Neighbourhoods(exact, min(rule.b, len(bank))).of(np.arange(len(bank)))
            self.register_buffer("around", torch.from_numpy(around.copy()))

    def forward(
        self, patches: torch.Tensor, compared: Compared | None = None, *, weighted: bool = False
    ) -> torch.Tensor:
        """Score patches (n, d): (n,); with `weighted`, as the rule asks for (Eq. 7).

        `compared` is a cheaper way to their products with the vectors, where there is one.
        """
        centred = patches - self.centre  # type: ignore[operator]
        ids = self._nearest(compared or self._products(centred))
        distances = self._measured(centred, ids)
        powers = distances * distances if self.rule.squared else distances
        scores = powers.mean(dim=1)
        if self.rule.b is None or not (weighted or self.rule.weighs_patches):
            return scores
        first = distances.argmin(dim=1, keepdim=True)
        nearest = distances.gather(1, first)
        around = F.embedding(ids.gather(1, first)[:, 0], self.around)  # type: ignore[arg-type]
        beyond = self._measured(centred, around) - nearest
        return scores * (1 - 1 / beyond.exp().sum(dim=1))

    def cut(self, columns: Sequence[int]) -> None:
        """Hold the vectors in parts that begin at some columns; each is cut into blocks by itself."""
        whole = torch.cat(list(self.parts), dim=1)
        self._hold(whole.tensor_split(sorted({*columns} - {0, whole.shape[1]}), dim=1))

    def _hold(self, parts: Sequence[torch.Tensor]) -> None:
        held = (nn.Parameter(part.contiguous(), requires_grad=False) for part in parts)
        self.parts = nn.ParameterList(held)

    def block(self, number: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return ``|p|^2`` (m,) and the parts (m, d_i) of ``p`` of some of the centred vectors."""
        some = slice(number * _BLOCK, (number + 1) * _BLOCK)
        return self.norms[some], [part[some] for part in self.parts]  # type: ignore[index]

    def _products(self, centred: torch.Tensor) -> Compared:
        scaled = -2 * centred

        def compared(number: int) -> torch.Tensor:
            norms, parts = self.block(number)
            return torch.addmm(norms, scaled, torch.cat(parts, dim=1).T)

        return compared

    def _nearest(self, compared: Compared) -> torch.Tensor:
        """Numbers (n, k) of the nearest vectors, in no promised order."""
        n_blocks = -(-len(self.norms) // _BLOCK)  # type: ignore[arg-type]
        if self.rule.n_neighbors == 1:
            return _nearest_of_groups(compared, n_blocks)
        return _nearest_few(compared, n_blocks, self.rule.n_neighbors)

    def _measured(self, centred: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        near = torch.cat([F.embedding(ids, part) for part in self.parts], dim=2)
        away = near - centred[:, None]
        return (away * away).sum(dim=2).sqrt()


def _nearest_few(compared: Compared, n_blocks: int, k: int) -> torch.Tensor:
    """Numbers (n, k) of the nearest vectors, in no promised order."""
    lowest, numbers = [], []
    for block in range(n_blocks):
        products = compared(block)
        found = products.topk(min(k, products.shape[1]), dim=1, largest=False)
        lowest.append(found.values)
        numbers.append(found.indices + block * _BLOCK)
    best = torch.cat(lowest, dim=1).topk(k, dim=1, largest=False)
    return torch.cat(numbers, dim=1).gather(1, best.indices)


def _nearest_of_groups(compared: Compared, n_blocks: int) -> torch.Tensor:
    """Numbers (n, 1) of the nearest vectors; of equals the first.

    Minima of groups are taken, and numbers are looked for in the best group of each block alone:
    runtimes are slow at numbers of minima.
    """
    found = [_lowest_group(compared(block), block * _BLOCK) for block in range(n_blocks)]
    firsts, groups = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    at = groups.argmin(dim=1, keepdim=True)
    return firsts.gather(1, at // _GROUP) + at % _GROUP


def _lowest_group(products: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the group with the lowest of every row: the number of its first vector, its values."""
    groups = products.unflatten(1, (-1, _GROUP))
    best = groups.amin(dim=2).argmin(dim=1)
    rows = torch.arange(groups.shape[0]) * groups.shape[1] + best
    first = (best * _GROUP + start)[:, None]
    return first, F.embedding(rows, groups.flatten(0, 1))


class BankGrids(nn.Module):
    """Scores the patches of images, and where the rule says so the images by their highest patch.

    Parameters
    ----------
    embedding : PatchEmbedding
    distances : BankDistances
    canvas : tuple of two ints
    tiles : Tiles or None
        What the network sees at once; None: the canvas.
    """

    def __init__(
        self,
        embedding: PatchEmbedding,
        distances: BankDistances,
        canvas: tuple[int, int],
        tiles: Tiles | None,
    ) -> None:
        super().__init__()
        self.embedding, self.distances, self.tiles = embedding, distances, tiles
        self.by_layers = None
        # Not of tiles, whose rims are dropped before the search.
        if tiles is None and not len(embedding.f) and not distances.rule.weighs_patches:
            with torch.no_grad():
                layers = embedding.layers(torch.zeros(1, *canvas, 3))
            if LayerProducts.pay(layers, embedding.dim):
                self.by_layers = LayerProducts(layers, embedding.starts, distances)

    def forward(self, pixels: torch.Tensor, seen: Seen) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return grids (B, h, w), and scores (B,) or None where those follow from the maps."""
        layers = self.embedding.layers(pixels if self.tiles is None else self.tiles.cut(pixels))
        embedded = self.embedding(layers)
        if self.tiles is not None:
            embedded = self.tiles.join(embedded)
        height, width = embedded.shape[2:]
        patches = embedded.flatten(2).transpose(1, 2)
        compared = None if self.by_layers is None else self.by_layers(layers, self.distances.block)
        scores = self.distances(patches.flatten(0, 1), compared).view(-1, height * width)
        grids = scores.view(-1, height, width)
        if self.distances.rule.image_score != "patch":
            return grids, None
        if seen.cells is not None:
            scores = torch.where(seen.cells, scores, -torch.inf)
        rule = self.distances.rule
        if rule.b is None or rule.weighs_patches:
            return grids, scores.amax(dim=1)
        top = scores.argmax(dim=1)[:, None, None].expand(-1, 1, patches.shape[2])
        return grids, self.distances(patches.gather(1, top)[:, 0], weighted=True)
