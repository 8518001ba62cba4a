"""What a user passes, on the way to the canvases of a network: for whatever takes images."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from skad._common.labels import good_images
from skad._common.memory import parse_bytes
from skad._common.warn import warn_user
from skad._images import (
    CanvasCache,
    Geometry,
    ImageBatch,
    ImageSource,
    RegionOfInterest,
    Size,
    Tiling,
    as_image_source,
    as_size,
    as_tiles,
    is_rows,
    iter_batches,
    make_tiling,
    refuse_other_kind,
    short_errors,
    warn_of_rows,
)
from skad.exceptions import FeatureError

# Beyond it, the aspect of an image is changed so much that a user is told.
_ASPECT = 2.0
# And so many times as many pixels as the images have.
_ENLARGED = 3


class ImageInput:
    """Opens images, checks them, and streams them on the canvas that a network sees.

    A mixin for estimators with the parameters `geometry`, `image_size`, `resize`, `image_shape`,
    `batch_size` and `n_jobs`; `tiles`, `roi` and `max_memory` may be absent. ``fit`` sets `geometry_` by
    :meth:`_make_geometry`, and `roi_`.

    Parameters
    ----------
    weights : "pretrained", path-like or None
        "pretrained": from the local cache of the Hugging Face hub, downloaded on first use
        ("skad_nano": from the package; "efficientnet_lite0": from the one that the extra ``lite``
        installs). A path: a .safetensors or .pth file; it may hold just the stages in use. None: random
        weights, always the same (for tests). Ignored for a network of your own.
    geometry : {"squash", "pad", "crop"}
        How an image meets the network: "squash" resizes it to a square; "pad" keeps the aspect
        and never scores the padding; "crop" is the papers' centre crop, which does not see the rim.
    image_size : int or tuple of two ints
        What the network sees, in pixels: the side of a square, or (height, width).
    resize : int or None
        Shorter side before the crop, in pixels; None: image_size / 0.875, the papers' ratio. Used
        by ``geometry="crop"`` alone.
    tiles : tuple (rows, columns), "native" or None
        For images that have more to show than the network takes: the canvas is cut into so many
        overlapping tiles of `image_size` each, which the network sees one by one; one map comes of them.
        What of a tile its neighbour shows better is cut off, so that there are no seams. "native":
        images are not resized, and each has as many tiles as its own size asks for; `geometry` is not
        used. None: the network sees the canvas at once. See ``docs/tiles.md``.
    image_shape : tuple (H, W) or (H, W, C)
        Shape of the images when X holds them as flattened rows. None: a row is a grey strip one
        pixel high, of its numbers as they are.
    roi : array-like of shape (H, W), path-like, callable or None
        Region of interest, in the coordinates of the images. What lies outside is made grey before the
        network sees it, is never learned and never scored, and is NaN in heat maps. A mask, zero
        outside, for images of its own size; a file of one (an image, or JSON with polygons and boxes as
        LabelMe or COCO write them), which ``fit`` reads; or a function that maps an image, (H, W, 3)
        uint8 or float32 in 0..1, to its mask. The function is called from several threads, and must be
        one that can be pickled. A patch counts if half of it lies inside.
    batch_size : int
        Images per forward pass. Changes no result.
    device : str
        "auto" (CUDA where present), "cpu", "cuda", "cuda:1", ... May be changed after ``fit``.
    precision : {"float32", "bfloat16"}
        Precision of the backbone.
    n_jobs : int or None
        Threads that read and resize images; None and -1: as many as the CPUs allow, at most 8.
    """

    geometry: str
    image_size: Any
    resize: int | None
    image_shape: Any
    batch_size: int
    n_jobs: int | None
    geometry_: Geometry

    def _smallest_side(self) -> int:
        """Pixels below which an image is refused."""
        return 1

    def _open_good(self, X: Any, y: Any, *, reset: bool) -> ImageSource:
        """Open the images to learn from."""
        images = self._open(X, reset=reset)
        good = good_images(y, len(images))
        return images if len(good) == len(images) else images.subset(good)

    def _open(self, X: Any, *, reset: bool) -> ImageSource:
        """Take what the user holds; rows go through scikit-learn's own validation."""
        rows = is_rows(X)
        if rows:
            with short_errors():
                X = validate_data(self, X, reset=reset, dtype="numeric")
        elif reset:
            for name in ("n_features_in_", "feature_names_in_"):
                if hasattr(self, name):
                    delattr(self, name)
        fitted_on_rows = hasattr(self, "n_features_in_")
        if self.image_shape is None and rows and reset:
            warn_of_rows()
        elif self.image_shape is None and rows != fitted_on_rows:
            refuse_other_kind(rows)
        images = as_image_source(X, image_shape=self.image_shape)
        images.windowed = getattr(self, "tiles", None) is not None
        return images

    def _iter_batches(
        self,
        images: ImageSource,
        order: np.ndarray | None = None,
        cache: CanvasCache | None = None,
    ) -> Generator[ImageBatch, None, None]:
        """Stream images in batches, on the canvas."""
        # One job reads in the calling thread.
        n_workers = {None: None, -1: None, 1: 0}.get(self.n_jobs, self.n_jobs)
        return iter_batches(
            images,
            self.geometry_,
            self.batch_size,
            n_workers=n_workers,
            order=order,
            cache=cache,
            roi=self._roi(),
            windowed=self._tiling() is not None,
        )

    def _make_geometry(self, images: ImageSource) -> Geometry:
        resize = self.resize if self.geometry == "crop" else None
        size = self._input_size(images)
        tiles = as_tiles(getattr(self, "tiles", None))
        self.tiling_ = None if tiles is None else make_tiling(tiles, size, self._deepest_stride())
        if self.tiling_ is None:
            return Geometry(self.geometry, size, resize)
        if not isinstance(tiles, str):
            return Geometry(self.geometry, as_size(self.tiling_.canvas), resize)
        if self.geometry == "crop":
            raise ValueError(
                'tiles="native" shows whole images at their own resolution: leave geometry="squash", or '
                "use tiles=(rows, columns)."
            )
        return Geometry("native", size, tiling=self.tiling_)

    def _tilings(self, images: ImageSource) -> list[Tiling] | None:
        """Return the tiles of each image, if there are any."""
        tiling = self._tiling()
        if tiling is None:
            return None
        if self.geometry_.tiling is None:
            return [tiling] * len(images)
        return [tiling.of(images.shape(i)) for i in range(len(images))]

    def _tiling(self) -> Tiling | None:
        # Detectors that were saved before there were any have none.
        return getattr(self, "tiling_", None)

    def _deepest_stride(self) -> int:
        """Pixels between positions of the deepest layer in use; seams of tiles lie between them."""
        return 32

    def _roi(self) -> RegionOfInterest | None:
        # Detectors that were saved before there were any have none.
        return getattr(self, "roi_", None)

    def _check_images(self, images: ImageSource) -> None:
        """Check all images before any work starts."""
        images.check(self._smallest_side())
        roi = self._roi()
        mask = None if roi is None else roi.of_shape()
        if roi is not None and mask is not None:
            for i, shape in images.known_shapes():  # others are checked when they are read
                roi.check_shape(shape, images.describe(i))
            self.geometry_.pixels(mask.inside.shape, mask)
        if self._tiling() is not None:
            self._check_decoding(images)

    def _check_decoding(self, images: ImageSource) -> None:
        """Refuse large images that can only be decoded as a whole, where that takes too much memory."""
        given = getattr(self, "max_memory", None)
        if given is None:
            return
        limit = parse_bytes(given)
        for i, (height, width) in images.known_shapes():
            needed = images.bytes_to_decode(i) if 3 * height * width > limit else 0
            if needed > limit:
                raise ValueError(
                    f"{images.describe(i)}: {height} x {width} pixels can only be decoded as a whole, "
                    f"which takes {needed / 1e9:.2f} GB, more than max_memory={given!r}. "
                    "Raise max_memory, save it as TIFF in strips or tiles (read piece by piece with "
                    "skad[tiff]), or pass a memory-mapped array."
                )

    def _warn_of_shapes(self, images: ImageSource) -> None:
        """Warn of images that do not suit the canvas; rows without a shape have none."""
        if hasattr(self, "n_features_in_") and self.image_shape is None:
            return
        self._warn_of_aspect(images)
        tiling = self._tiling()
        if tiling is not None and tiling.rows is not None:
            self._warn_of_enlarging(images, tiling)

    def _warn_of_enlarging(self, images: ImageSource, tiling: Tiling) -> None:
        """Warn of tiles that show no more than the images have."""
        pixels = [height * width for _, (height, width) in images.known_shapes()]
        rows, columns = self.geometry_.canvas
        if pixels and rows * columns > _ENLARGED * float(np.median(pixels)):
            warn_user(
                f"tiles={tiling.counts} of image_size={tiling.tile} show images on {rows} x {columns} "
                f"pixels, and most of them have fewer than 1 / {_ENLARGED} of that: so they are only "
                "enlarged. Use fewer or smaller tiles."
            )

    def _warn_of_aspect(self, images: ImageSource) -> None:
        """Warn of images that lose their shape on the canvas, more than twofold."""
        factors = {i: self.geometry_.distortion(*shape) for i, shape in images.known_shapes()}
        worst = max(factors, key=lambda i: factors[i], default=None)
        if worst is not None and factors[worst] > _ASPECT:
            n = sum(factor > _ASPECT for factor in factors.values())
            height, width = images.shape(worst)
            warn_user(
                f"{n} of {len(images)} images are squeezed more than twofold to "
                f"{self.geometry_.image_size} "
                f"pixels: {images.describe(worst)} has {height} x {width}. Give image_size=(height, "
                'width) the shape of the images, or keep it by geometry="pad".'
            )

    def _input_size(self, images: ImageSource) -> Size:
        """Size of what the network sees, as the parameters and the images ask for it."""
        return as_size(self.image_size)

    @property
    def image_size_(self) -> Size:
        """Side of the square that the network sees, or its height and width, in pixels."""
        tiling = self._tiling()
        return self.geometry_.image_size if tiling is None else tiling.tile


@contextmanager
def naming(images: ImageSource) -> Iterator[None]:
    """Call the image by its name, of which the backbone cannot say anything."""
    try:
        yield
    except FeatureError as error:
        raise FeatureError(error.largest, error.index, images.describe(error.index)) from error
