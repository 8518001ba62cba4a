"""Whitening: directions that good patches fill count less in distances than those they leave empty.

Channels of a backbone are correlated, and a few strong ones rule the distances between patches. A
linear map per layer evens that out. With C the covariance of a layer's values over the good patches,
and lambda its eigenvalues, the map is (C + s mean(lambda) I)^-p: p = 1/2 makes distances those of
Mahalanobis, p = 0 leaves them as they are.

Maps act on pooled feature maps, each layer at its own resolution: whatever joins, stores or compares
patches behind them needs not know. That costs a product per layer and image.

Images that a map was learned from are whitened better than new ones: they lie closer to the bank, also
where it does not hold them. So that thresholds hold, each fold of the training images is scored by a map
that was learned from the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_max_pool2d

from skad._features.extractor import PatchExtractor
from skad._features.store import StoredExtractor
from skad._images import Footprint

# s above: keeps directions that hold little but noise from ruling the distances. See docs/whitening.md.
SHRINKAGE = 0.1
# Variance below which float32 is all noise, relative to the mean square.
_ROUNDING = 1e-9


def whitening_matrix(
    covariance: torch.Tensor, mean: torch.Tensor, strength: float
) -> NDArray[np.float32]:
    """Return (C + s mean(lambda) I)^-p, with s = 0.1.

    Parameters
    ----------
    covariance : torch.Tensor of shape (C, C), float64
    mean : torch.Tensor of shape (C,), float64
        Tells what is no more than rounding: patches that are all equal are not whitened.
    strength : float
        p, in [0, 0.5].

    Returns
    -------
    ndarray of shape (C, C), float32
        Symmetric.

    Examples
    --------
    >>> C = torch.diag(torch.tensor([9.0, 1.0], dtype=torch.float64))
    >>> whitening_matrix(C, torch.zeros(2), 0.5).diagonal().round(3)
    array([0.324, 0.816], dtype=float32)
    """
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp_min(0)
    floor = _ROUNDING * float(mean.square().mean() + values.mean())
    if floor == 0 or values.mean() <= floor:
        return np.eye(len(mean), dtype=np.float32)
    powers = (values + SHRINKAGE * values.mean()) ** -strength
    matrix = vectors * powers @ vectors.T
    return ((matrix + matrix.T) / 2).float().numpy()


class LayerMoments:
    """Mean and covariance of a layer's values over positions of many images, added up in float64.

    Parameters
    ----------
    shift : torch.Tensor of shape (C,)
        Values near their mean: sums around 0 would lose the small variance of large values.
    """

    def __init__(self, shift: torch.Tensor) -> None:
        self.n_values, self._shift = 0, shift.double()
        self._sum = torch.zeros_like(self._shift)
        self._products = torch.outer(self._sum, self._sum)

    def add(self, rows: torch.Tensor) -> None:
        """Add (n, C) values."""
        rows = rows.double() - self._shift
        self.n_values += len(rows)
        self._sum += rows.sum(0)
        self._products += rows.T @ rows

    def without(self, part: LayerMoments) -> LayerMoments:
        """Return those of all values but a part of them, which was added up around the same shift."""
        rest = LayerMoments(self._shift)
        rest.n_values = self.n_values - part.n_values
        rest._sum = self._sum - part._sum
        rest._products = self._products - part._products
        return rest

    def gains(self, matrix: NDArray[np.float32]) -> tuple[float, float]:
        """Mean squares of what becomes of values, and of errors as long that point anywhere."""
        mean, squares = self.mean(), self.covariance() + torch.outer(self.mean(), self.mean())
        mapped = torch.from_numpy(matrix).double()
        of_values = float((mapped @ squares @ mapped.T).trace())
        return of_values, float(squares.trace() * mapped.square().sum() / len(mean))

    def mean(self) -> torch.Tensor:
        """Return the mean, of shape (C,)."""
        return (self._shift + self._sum / self.n_values).cpu()

    def covariance(self) -> torch.Tensor:
        """Return the covariance, of shape (C, C)."""
        mean = self._sum / self.n_values
        return (self._products / self.n_values - torch.outer(mean, mean)).cpu()


class Whitening(NamedTuple):
    """Maps of all layers."""

    matrices: list[NDArray[np.float32]]
    """(C_j, C_j) per layer, symmetric."""
    rounding: float
    """How much larger rounding errors are behind the maps, as fractions of a vector's length."""
    fold_weights: list[NDArray[np.float32]]
    """(d, d) per fold: ``weight @ p`` makes of a patch p that all images have whitened the same patch as
    the images of the other folds whiten it. Empty if there is one fold."""


def learn_whitening(
    extractor: PatchExtractor | StoredExtractor,
    pooled: Iterable[tuple[torch.Tensor, Footprint]],
    strength: float,
    folds: NDArray[np.int64],
) -> Whitening:
    """Learn the maps of all layers from good images, in one pass.

    Parameters
    ----------
    extractor : PatchExtractor
    pooled : iterable of pairs
        Pooled feature maps of each image or tile, (1, n_values), and what of it counts.
    strength : float
    folds : ndarray of shape (n_images,)
        The fold of each, 0 to F - 1.

    Returns
    -------
    Whitening
    """
    of_all: list[LayerMoments] = []
    of_folds: list[list[LayerMoments]] = []
    with torch.inference_mode():
        for (one, footprint), fold in zip(pooled, folds, strict=True):
            if not footprint.mask.any():
                continue  # a tile outside of a region of interest
            layers = [_inside(layer[0], footprint) for layer in extractor.split(one)]
            if not of_all:
                of_all, *of_folds = (
                    [LayerMoments(layer.mean(0)) for layer in layers]
                    for _ in range(2 + int(folds.max()))
                )
            for moments in (of_all, of_folds[fold]):
                for of_layer, layer in zip(moments, layers, strict=True):
                    of_layer.add(layer)
    matrices = [_matrix(moments, strength) for moments in of_all]
    gains = [of.gains(matrix) for of, matrix in zip(of_all, matrices, strict=True)]
    of_values, of_errors = (sum(squares) for squares in zip(*gains, strict=True))
    rounding = float(np.sqrt(of_errors / of_values)) if of_values > 0 else 1.0
    weights = []
    for of_fold in of_folds if len(of_folds) > 1 else []:
        rest = [all_.without(part) for all_, part in zip(of_all, of_fold, strict=True)]
        others = [_matrix(moments, strength) for moments in rest]
        weights.append(_between(extractor, matrices, others))
    return Whitening(matrices, rounding, weights)


def _matrix(moments: LayerMoments, strength: float) -> NDArray[np.float32]:
    return whitening_matrix(moments.covariance(), moments.mean(), strength)


def _between(
    extractor: PatchExtractor | StoredExtractor,
    given: Sequence[NDArray[np.float32]],
    wanted: Sequence[NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Return the map that makes of patches whitened by some matrices such whitened by others.

    With three layers and ``aggregation="adaptive"`` a value may belong to two of them, and is mapped as
    a part of both.
    """
    weight = np.eye(extractor.dim)
    for start, before, after in zip(extractor.starts, given, wanted, strict=True):
        own = slice(start, start + len(before))
        both = np.linalg.solve(before.astype(float), after.astype(float))
        weight[own, own] += both.T - np.eye(len(before))
    return weight.astype(np.float32)


def _inside(layer: torch.Tensor, footprint: Footprint) -> torch.Tensor:
    """Values (n, C) of a layer's positions that see a part of the image."""
    rows = layer.flatten(0, 1)
    if footprint.mask.all():
        return rows
    mask = torch.from_numpy(footprint.mask)[None].float()
    seen = adaptive_max_pool2d(mask, layer.shape[:2]).flatten() > 0
    return rows[seen.to(rows.device)]


class WhitenedExtractor:
    """A patch extractor whose pooled feature maps are whitened.

    Stands in for :class:`PatchExtractor`: what that answers, this does too. A store behind it keeps
    feature maps as the backbone makes them.

    Parameters
    ----------
    extractor : PatchExtractor, StoredExtractor or WhitenedExtractor
    matrices : sequence of ndarray of shape (C_j, C_j), float32
        One per layer; symmetric.

    Raises
    ------
    ValueError
        If the layers have other numbers of channels.
    """

    def __init__(
        self,
        extractor: PatchExtractor | StoredExtractor | WhitenedExtractor,
        matrices: Sequence[np.ndarray],
    ) -> None:
        wanted = [len(matrix) for matrix in matrices]
        if extractor.channels != wanted:
            raise ValueError(
                f"whitening_ maps layers of {wanted} channels, and those of this backbone have "
                f"{extractor.channels}: they do not belong together."
            )
        self._extractor = extractor
        # Copied, since torch warns of the read-only memory map that a worker may see.
        self._matrices = [torch.from_numpy(np.array(m)).to(extractor.device) for m in matrices]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)

    def pool(self, pixels: np.ndarray) -> torch.Tensor:
        """Whitened feature maps of a batch, of shape (B, n_values), float32."""
        return self.whiten(self._extractor.pool(pixels))

    def embed(self, pixels: np.ndarray) -> torch.Tensor:
        """Patch embeddings of a batch, as :meth:`PatchExtractor.embed` gives them, whitened."""
        return torch.cat([self._extractor.join(one) for one in self.pool(pixels).split(1)])

    def whiten(self, pooled: torch.Tensor) -> torch.Tensor:
        """Whiten pooled feature maps.

        Parameters
        ----------
        pooled : torch.Tensor of shape (B, n_values), float32

        Returns
        -------
        torch.Tensor of shape (B, n_values), float32
            On the CPU an image has bitwise the same ones in every batch.
        """
        # A product rounds by its shape: one image at a time, where all must round alike.
        some = pooled.split(1) if pooled.device.type == "cpu" else (pooled,)
        with torch.inference_mode():
            return torch.cat([torch.cat(list(self._mapped(one)), dim=1) for one in some])

    def _mapped(self, pooled: torch.Tensor) -> Iterator[torch.Tensor]:
        for layer, matrix in zip(self._extractor.split(pooled), self._matrices, strict=True):
            yield (layer.flatten(0, 2) @ matrix).view(len(pooled), -1)
