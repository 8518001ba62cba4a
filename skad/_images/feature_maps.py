"""Feature maps in place of images, for those that were computed before: nothing is left to decode."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from skad._common.numbers import refuse_masked
from skad._common.text import shortened

from .batches import ImageBatch
from .decode import as_ndarray
from .footprints import Frame
from .items import is_tensor, type_name
from .sources import ImageSource

_WANTED = (
    'backbone="precomputed" takes features in one array of shape (n, h, w, d), such as '
    "PatchEmbedder(pooling=None) returns"
)
# Bytes that are checked at once.
_CHUNK = 2**26


class FeatureSource(ImageSource):
    """A sequence of feature maps, as if they were images of the size of their canvas.

    Parameters
    ----------
    maps : array of shape (n, h, w, d), floats
        In memory, or anything that has a shape and is read by slices.
    canvas : tuple of two ints
        Height and width in pixels of what each map covers.

    Raises
    ------
    TypeError, ValueError
        If it is another thing than such an array; with the remedy.
    """

    def __init__(self, maps: Any, canvas: tuple[int, int]) -> None:
        super().__init__(maps)
        self._canvas = canvas

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Shape (h, w, d) of each map."""
        height, width, dim = self._items.shape[1:]  # type: ignore[attr-defined]
        return int(height), int(width), int(dim)

    def shape(self, i: int) -> tuple[int, int]:
        """Height and width of the canvas."""
        return self._canvas

    def known_shapes(self) -> list[tuple[int, tuple[int, int]]]:
        """All are known."""
        return [(i, self._canvas) for i in range(len(self))]

    def describe(self, i: int) -> str:
        """Name one map for an error message."""
        return f"feature map {self._position(i)}"

    def load(self, i: int) -> np.ndarray:
        """Refuse: there is no picture."""
        raise TypeError(f"{self.describe(i)} has no pixels to show: X holds features, not images.")

    def check(self, min_side: int = 1) -> None:
        """Refuse maps with numbers that are not finite, before any work starts."""
        n_at_once = max(1, _CHUNK // (4 * int(np.prod(self.map_shape))))
        for start in range(0, len(self), n_at_once):
            block = self.read(range(start, min(start + n_at_once, len(self))))
            # NaN is the least and the greatest; this takes no memory.
            if np.isfinite(block.min()) and np.isfinite(block.max()):
                continue
            finite = np.isfinite(block).all(axis=(1, 2, 3))
            raise ValueError(
                f"{self.describe(start + int(finite.argmin()))}: holds NaN or infinity, which has no "
                "distance from anything. PatchEmbedder returns NaN for patches in padding and outside "
                'a region of interest: use geometry="squash" and roi=None there.'
            )

    def read(self, indices: range) -> np.ndarray:
        """Read maps that lie one after the other in this source.

        Parameters
        ----------
        indices : range
            At least one.

        Returns
        -------
        ndarray of shape (len(indices), h, w, d), float32, C-contiguous
            It may be a view of the user's array: not to be written into.
        """
        positions = [self._position(i) for i in indices]
        maps: Any = self._items
        if positions == list(range(positions[0], positions[-1] + 1)):
            block = maps[positions[0] : positions[-1] + 1]
        else:
            block = np.stack([np.asarray(maps[position]) for position in positions])
        # A read-only array is copied: torch warns of it.
        return np.require(block, dtype=np.float32, requirements=["C", "W"])

    def batches(self, batch_size: int) -> Generator[ImageBatch, None, None]:
        """Stream the maps in batches."""
        for start in range(0, len(self), batch_size):
            maps = self.read(range(start, min(start + batch_size, len(self))))
            yield ImageBatch(start, maps, [Frame(self._canvas)] * len(maps))


def as_feature_maps(X: Any) -> Any:
    """Refuse what is no array of feature maps.

    Parameters
    ----------
    X : object
        Whatever the user passed.

    Returns
    -------
    array of shape (n, h, w, d)
        X itself; of a tensor, a view.

    Raises
    ------
    TypeError, ValueError
        With the remedy.
    """
    shape, kind = getattr(X, "shape", None), getattr(getattr(X, "dtype", None), "kind", "f")
    if not isinstance(shape, tuple) or not hasattr(X, "__getitem__") or hasattr(X, "columns"):
        hint = " Join them: np.stack(X)." if isinstance(X, (list, tuple)) else ""
        raise TypeError(f"{_WANTED}; got {type_name(X)}.{hint}")
    if is_tensor(X):
        X = as_ndarray(X, "X")
        shape, kind = X.shape, X.dtype.kind
    refuse_masked(X, "X")
    if len(shape) != 4:
        hints = {
            2: " Rows are features that were pooled: PatchEmbedder(pooling=None) keeps the maps.",
            3: " A single map: pass X[None].",
        }
        raise ValueError(f"{_WANTED}; got {tuple(shape)}.{hints.get(len(shape), '')}")
    if kind != "f":
        raise ValueError(
            f"{_WANTED}, of floats; got {shortened(str(X.dtype))}. Images become features by "
            "PatchEmbedder(pooling=None)."
        )
    if shape[0] == 0:
        raise ValueError("no features: found 0 sample(s) in X, while a minimum of 1 is required.")
    if 0 in shape:
        raise ValueError(f"{_WANTED}; got {tuple(shape)}, which holds no numbers.")
    return X
