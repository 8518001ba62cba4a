"""An ordered stream of batches, decoded and resized ahead of the consumer."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from numbers import Integral
from typing import NamedTuple

import numpy as np

from .geometry import Geometry
from .sources import ImageSource
from .threads import available_workers, ordered_map


class ImageBatch(NamedTuple):
    """Images that lie one after the other in a source, on the canvas.

    Attributes
    ----------
    start : int
        Number of the first image in the source.
    pixels : ndarray of shape (B, S, S, 3)
        uint8; float32 in 0..1 if any of the images is float. ``x.astype(float32) / float32(255)``
        makes the one of the other, here as everywhere: the score of an image must not depend on
        its neighbours.
    shapes : list of (H, W)
        Heights and widths of the images themselves.
    """

    start: int
    pixels: np.ndarray
    shapes: list[tuple[int, int]]


def iter_batches(
    source: ImageSource,
    geometry: Geometry,
    batch_size: int,
    *,
    n_workers: int | None = None,
) -> Generator[ImageBatch, None, None]:
    """Stream a source in batches.

    Parameters
    ----------
    source : ImageSource
        The images.
    geometry : Geometry
        How they are brought to the canvas.
    batch_size : int
        Images a batch; the last batch is shorter.
    n_workers : int, default=None
        Threads that decode and resize about one batch ahead of the consumer. 0 works in the
        calling thread; None takes the CPUs of this process, at most 8.

    Yields
    ------
    ImageBatch
        In the order of the source, the same for any number of workers.

    Raises
    ------
    ValueError
        At the call, if `batch_size` or `n_workers` is out of range; in its turn, from an image
        that cannot be read.
    """
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer; got {batch_size!r}.")
    if n_workers is None:
        n_workers = available_workers()
    if not isinstance(n_workers, Integral) or n_workers < 0:
        raise ValueError(f"n_workers must be an integer of 0 at least, or None; got {n_workers!r}.")
    return _batches(source, geometry, int(batch_size), min(int(n_workers), len(source)))


def _batches(
    source: ImageSource, geometry: Geometry, batch_size: int, n_workers: int
) -> Generator[ImageBatch, None, None]:
    def prepare(i: int) -> tuple[np.ndarray, tuple[int, int]]:
        image = source.load(i)
        return geometry.apply(image), (image.shape[0], image.shape[1])

    # While the consumer computes on one batch, the next is made, and no worker waits meanwhile.
    window = batch_size + n_workers
    images = ordered_map(prepare, range(len(source)), n_workers=n_workers, window=window)
    try:
        for start, group in zip(
            range(0, len(source), batch_size), _groups(images, batch_size), strict=True
        ):
            canvases, shapes = zip(*group, strict=True)
            yield ImageBatch(start, _stacked(canvases), list(shapes))
    finally:
        # Not left to garbage collection: an error in the consumer keeps this frame alive.
        images.close()


def _groups(
    images: Iterator[tuple[np.ndarray, tuple[int, int]]], size: int
) -> Iterator[list[tuple[np.ndarray, tuple[int, int]]]]:
    while group := list(islice(images, size)):
        yield group


def _stacked(canvases: Iterable[np.ndarray]) -> np.ndarray:
    """Join canvases in one array, as floats if any is."""
    canvases = list(canvases)
    if len({canvas.dtype for canvas in canvases}) > 1:
        canvases = [_as_float(canvas) for canvas in canvases]
    return np.stack(canvases)


def _as_float(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    return pixels
