"""A network of the user's own is recognised by what it is made of and by what it answers.

Its weights alone do not tell: ReLU and Tanh have none. Answers are compared as numbers, with a
tolerance: two processors round differently, and so does one with another number of threads.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch

from skad._images import Size, height_and_width

# Answers may differ by so much, relative to the norm of a layer.
_TOLERANCE = 1e-3
# Numbers that are kept of a layer, so that a pickled detector stays small.
_KEPT = 1024


@dataclass(frozen=True, eq=False)
class BackboneIdentity:
    """What a network of the user's own is recognised by, beside its weights.

    Parameters
    ----------
    configuration : str
        Digest of its classes, functions and settings.
    versions : tuple of str
        Of Python and torch, between which modules of equal settings may differ in their attributes.
    shapes : tuple of tuple of int
        Of its answer to `probe_image`, layer by layer.
    norms : ndarray of shape (n_layers,), float64
        Root mean squares of the layers.
    values : tuple of n_layers ndarrays, float32
        Values of the layers, evenly spread.
    """

    configuration: str
    versions: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    norms: np.ndarray
    values: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, configuration: str, maps: list[torch.Tensor]) -> BackboneIdentity:
        """Take down what a network is and answers.

        Parameters
        ----------
        configuration : str
        maps : list of torch.Tensor
            Its answer to `probe_image`.
        """
        layers = [layer.detach().double().cpu().numpy() for layer in maps]
        return cls(
            configuration,
            (f"{sys.version_info[0]}.{sys.version_info[1]}", torch.__version__.split("+")[0]),
            tuple(layer.shape for layer in layers),
            np.array([_root_mean_square(layer) for layer in layers]),
            tuple(_spread(layer.ravel()).astype(np.float32) for layer in layers),
        )

    def difference(self, other: BackboneIdentity | None) -> str | None:
        """Name what tells two networks apart.

        Parameters
        ----------
        other : BackboneIdentity or None

        Returns
        -------
        str or None
            None if nothing does.
        """
        if other is None:
            return "configuration"
        if self.versions == other.versions and self.configuration != other.configuration:
            return "configuration"
        if self.shapes != other.shapes:
            return "outputs"
        layers = [
            *zip(self.norms[:, None], other.norms[:, None], strict=True),
            *zip(self.values, other.values, strict=True),
        ]
        return None if all(_close(a, b) for a, b in layers) else "outputs"


def probe_image(size: Size) -> torch.Tensor:
    """Image by whose answers networks are compared: noise on squares, the same on every machine.

    Parameters
    ----------
    size : int or tuple of two ints

    Returns
    -------
    torch.Tensor of shape (1, H, W, 3), uint8

    Examples
    --------
    >>> probe_image(32).shape
    torch.Size([1, 32, 32, 3])
    """
    random = np.random.RandomState(0)  # whose numbers are promised to stay
    squares = random.randint(0, 192, (8, 8, 3))
    height, width = height_and_width(size)
    rows, columns = (np.arange(side) * 8 // side for side in (height, width))
    image = squares[rows][:, columns] + random.randint(0, 64, (height, width, 3))
    return torch.from_numpy(image.astype(np.uint8)[None])


def _spread(values: np.ndarray) -> np.ndarray:
    if len(values) <= _KEPT:
        return values
    return values[np.linspace(0, len(values) - 1, _KEPT).astype(np.int64)]


def _root_mean_square(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return False
    a, b = a[finite].astype(np.float64), b[finite].astype(np.float64)
    return bool(np.linalg.norm(a - b) <= _TOLERANCE * max(np.linalg.norm(a), np.linalg.norm(b)))
