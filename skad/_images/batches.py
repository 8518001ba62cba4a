"""An ordered stream of batches, decoded and resized ahead of the consumer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from skad._common.forks import ObjectLock

from .footprints import Frame
from .geometry import Geometry
from .pieces import WindowedCanvas
from .roi import Mask, RegionOfInterest
from .sources import ImageSource
from .threads import available_workers, ordered_map


class ImageBatch(NamedTuple):
    """Images that lie one after the other in a source, on the canvas.

    Attributes
    ----------
    start : int
        Number of the first image in the stream.
    pixels : ndarray of shape (B, S, S, 3), or list of B canvases
        A list, of arrays and of ``WindowedCanvas``, where there are large images and the caller
        has asked for windows. uint8; float32 in 0..1 if any of the images is float. uint8 becomes
        float32 by ``x.astype(float32) / float32(255)`` everywhere: the score of an image must not
        depend on its neighbours. It may be a view of the user's array: not to be written into.
    frames : list of Frame
        Height and width of each image, and its region of interest.
    """

    start: int
    pixels: Any
    frames: list[Frame]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Heights and widths of the images themselves."""
        return [frame.shape for frame in self.frames]


class _Prepared(NamedTuple):
    """An image on the canvas."""

    canvas: Any
    """An array, or a :class:`WindowedCanvas`."""
    frame: Frame


class CanvasCache:
    """Keeps images on the canvas from one pass over a source to the next, as far as memory allows.

    Parameters
    ----------
    max_bytes : int or None
        Images that do not fit are decoded again in every pass. None: no limit.
    """

    def __init__(self, max_bytes: int | None) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._kept: dict[int, _Prepared] = {}
        self._lock = ObjectLock()

    def get(self, i: int, prepare: Callable[[int], _Prepared]) -> _Prepared:
        """Take image `i` from memory, else from `prepare`."""
        if i in self._kept:
            return self._kept[i]
        prepared = prepare(i)
        with self._lock:
            n_bytes = self.n_bytes + prepared.canvas.nbytes
            if self.max_bytes is None or n_bytes <= self.max_bytes:
                self._kept[i], self.n_bytes = prepared, n_bytes
        return prepared


def iter_batches(
    source: ImageSource,
    geometry: Geometry,
    batch_size: int,
    *,
    n_workers: int | None = None,
    order: np.ndarray | None = None,
    cache: CanvasCache | None = None,
    roi: RegionOfInterest | None = None,
    windowed: bool = False,
) -> Generator[ImageBatch, None, None]:
    """Stream a source in batches.

    Parameters
    ----------
    source : ImageSource
        The images.
    geometry : Geometry
        How they are brought to the canvas.
    batch_size : int
        Images per batch; the last batch may be shorter.
    n_workers : int, default=None
        Threads that decode and resize about one batch ahead of the consumer. 0 works in the
        calling thread, as for one image alone; None takes the CPUs of this process, at most 8.
    order : ndarray of int, default=None
        Images of the source to stream, in this order; None: all, one after the other.
    cache : CanvasCache or None, default=None
        Shared by several passes over the same source.
    roi : RegionOfInterest or None, default=None
        What lies outside is made grey.
    windowed : bool, default=False
        Whether canvases are looked at through windows: those of large images are made then window by
        window, and a batch with such images is a list.

    Yields
    ------
    ImageBatch
        In that order, the same for any number of workers.

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
    indices = range(len(source)) if order is None else order.tolist()
    # To start a thread takes longer than to resize a small image.
    n_workers = min(int(n_workers), len(indices)) if len(indices) > 1 else 0
    first = source.stacked(indices[:1]) if len(indices) else None
    if first is not None and geometry.keeps(*first.shape[1:3]) and roi is None:
        return _ready_batches(source, int(batch_size), indices)
    return _batches(source, geometry, int(batch_size), n_workers, indices, cache, roi, windowed)


def _ready_batches(
    source: ImageSource, batch_size: int, indices: Sequence[int]
) -> Generator[ImageBatch, None, None]:
    """Batches of images that have the size of the canvas already: without threads or copies."""
    for start in range(0, len(indices), batch_size):
        pixels = source.stacked(indices[start : start + batch_size])
        assert pixels is not None
        height, width = pixels.shape[1:3]
        yield ImageBatch(start, pixels, [Frame((height, width))] * len(pixels))


def _batches(
    source: ImageSource,
    geometry: Geometry,
    batch_size: int,
    n_workers: int,
    indices: Sequence[int],
    cache: CanvasCache | None,
    roi: RegionOfInterest | None,
    windowed: bool,
) -> Generator[ImageBatch, None, None]:
    def prepare(i: int) -> _Prepared:
        image: Any = None
        pieces = None
        # A function is shown the image; and of some, nothing is known before they are read.
        if windowed and source.is_known(i) and (roi is None or roi.of_shape() is not None):
            pieces = source.pieces(i)
        if pieces is None:
            image = source.load(i)
            pieces = source.pieces(i, whole=image) if windowed else None
        shape = image.shape if pieces is None else pieces.shape
        frame = Frame((shape[0], shape[1]), mask_of(i, image))
        if pieces is not None:
            return _Prepared(WindowedCanvas(pieces, geometry, frame.mask), frame)
        shown = image if frame.mask is None else frame.mask.blank(image)
        return _Prepared(geometry.apply(shown), frame)

    def mask_of(i: int, image: Any) -> Mask | None:
        if roi is None:
            return None
        mask: Any = roi.of_shape() if image is None else roi.of(image, source.describe(i))
        try:
            geometry.pixels(mask.inside.shape, mask)
        except ValueError as error:
            raise ValueError(f"{source.describe(i)}: {error}") from error
        return mask

    def cached(i: int) -> _Prepared:
        return prepare(i) if cache is None else cache.get(i, prepare)

    # While the consumer computes on one batch, the next is made, and no worker waits meanwhile.
    window = batch_size + n_workers
    images = ordered_map(cached, indices, n_workers=n_workers, window=window)
    try:
        for start, group in zip(
            range(0, len(indices), batch_size), _groups(images, batch_size), strict=True
        ):
            canvases, frames = zip(*group, strict=True)
            yield ImageBatch(start, stacked(canvases), list(frames))
    finally:
        # Not left to garbage collection: an error in the consumer keeps this frame alive.
        images.close()


def _groups(images: Iterator[_Prepared], size: int) -> Iterator[list[_Prepared]]:
    while group := list(islice(images, size)):
        yield group


def stacked(canvases: Iterable[Any]) -> Any:
    """Join canvases in one array, as floats if any is; in a list, if some are windowed or larger."""
    canvases = list(canvases)
    if len({canvas.shape for canvas in canvases}) > 1 or any(
        isinstance(canvas, WindowedCanvas) for canvas in canvases
    ):
        return canvases
    if len({canvas.dtype for canvas in canvases}) > 1:
        canvases = [_as_float(canvas) for canvas in canvases]
    return np.stack(canvases)


def _as_float(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    return pixels
