"""Scores of patches by their distances to a memory bank, as tensors that can be exported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from skad._bank import MemoryBank
from skad._bank.neighbourhoods import Neighbourhoods
from skad._export.networks import exportable
from skad._export.rendering import Seen
from skad._features import PatchExtractor
from skad._features.embedding import ConcatEmbedding
from skad._features.extractor import feature_maps
from skad._scoring.plain import Rule

# Bank vectors of one product: what all patches of an image make of them stays in cache.
_BLOCK = 1024
# Of which the lowest is found before that of all; blocks are made of whole groups.
_GROUP = 64


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

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed the patches (B, d, h, w) of images (B, H, W, 3), float32 in 0..1."""
        maps = feature_maps(self.net, pixels, self.spec)
        layers = [layer.permute(0, 3, 1, 2) for layer in self.embedding.pool(maps)]
        if len(self.whitening):
            pairs = zip(layers, self.whitening, strict=True)
            layers = [F.conv2d(layer, kernel) for layer, kernel in pairs]
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
    distance of a bank vector to itself is 0.

    Parameters
    ----------
    bank : MemoryBank
    rule : Rule
    """

    def __init__(self, bank: MemoryBank, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        exact = bank.exact(torch.device("cpu"))
        self.register_buffer("vectors", exact.vectors.clone())
        self.register_buffer("centre", exact.centre.clone())
        self.register_buffer("norms", _padded(exact.norms, torch.inf))
        self.register_buffer("points", _padded(-2 * exact.points.T, 0.0).contiguous())
        if rule.b is not None:
            around = Neighbourhoods(exact, min(rule.b, len(bank))).of(np.arange(len(bank)))
            self.register_buffer("around", torch.from_numpy(around.copy()))

    def forward(self, patches: torch.Tensor, *, weighted: bool = False) -> torch.Tensor:
        """Score patches (n, d): (n,); with `weighted`, as the rule asks for (Eq. 7)."""
        ids = self._nearest(patches)
        distances = self._measured(patches, ids)
        powers = distances * distances if self.rule.squared else distances
        scores = powers.mean(dim=1)
        if self.rule.b is None or not (weighted or self.rule.weighs_patches):
            return scores
        first = distances.argmin(dim=1, keepdim=True)
        nearest = distances.gather(1, first)
        around = F.embedding(ids.gather(1, first)[:, 0], self.around)  # type: ignore[arg-type]
        beyond = self._measured(patches, around) - nearest
        return scores * (1 - 1 / beyond.exp().sum(dim=1))

    def _nearest(self, patches: torch.Tensor) -> torch.Tensor:
        """Numbers (n, k) of the nearest vectors, in no promised order."""
        centred = patches - self.centre  # type: ignore[operator]
        n_vectors, k = len(self.norms), self.rule.n_neighbors  # type: ignore[arg-type]
        lowest, numbers = [], []
        for start in range(0, n_vectors, _BLOCK):
            some = slice(start, min(start + _BLOCK, n_vectors))
            # The query's own norm is left out: it does not change the order.
            compared = torch.addmm(self.norms[some], centred, self.points[:, some])  # type: ignore[index]
            values, ids = _smallest(compared, min(k, compared.shape[1]))
            lowest.append(values)
            numbers.append(ids + start)
        if len(numbers) == 1:
            return numbers[0]
        _, best = _smallest(torch.cat(lowest, dim=1), k)
        return torch.cat(numbers, dim=1).gather(1, best)

    def _measured(self, patches: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        away = F.embedding(ids, self.vectors) - patches[:, None]  # type: ignore[arg-type]
        return (away * away).sum(dim=2).sqrt()


def _padded(values: torch.Tensor, fill: float) -> torch.Tensor:
    """Fill the last axis up to whole groups."""
    return F.pad(values, (0, -values.shape[-1] % _GROUP), value=fill)


def _smallest(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the k smallest of every row, and their columns; of equals the first, where k is 1."""
    if k > 1:
        found = values.topk(k, dim=1, largest=False)
        return found.values, found.indices
    return _lowest_of_groups(values) if values.shape[1] % _GROUP == 0 else _lowest(values)


def _lowest(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    ids = values.argmin(dim=1, keepdim=True)
    return values.gather(1, ids), ids


def _lowest_of_groups(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the lowest of every row: of groups first, since runtimes are slow at numbers of minima."""
    n_groups = values.shape[1] // _GROUP
    groups = values.view(-1, n_groups, _GROUP)
    _, best = _lowest(groups.amin(dim=2))
    rows = torch.arange(values.shape[0])[:, None] * n_groups + best
    lowest, within = _lowest(F.embedding(rows[:, 0], groups.flatten(0, 1)))
    return lowest, best * _GROUP + within


class BankGrids(nn.Module):
    """Scores the patches of images, and where the rule says so the images by their highest patch.

    Parameters
    ----------
    embedding : PatchEmbedding
    distances : BankDistances
    """

    def __init__(self, embedding: PatchEmbedding, distances: BankDistances) -> None:
        super().__init__()
        self.embedding, self.distances = embedding, distances

    def forward(self, pixels: torch.Tensor, seen: Seen) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return grids (B, h, w), and scores (B,) or None where those follow from the maps."""
        embedded = self.embedding(pixels)
        height, width = embedded.shape[2:]
        patches = embedded.flatten(2).transpose(1, 2)
        scores = self.distances(patches.flatten(0, 1)).view(-1, height * width)
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
