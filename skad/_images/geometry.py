"""How images of any size are placed on the canvas of a network, and maps brought back.

All modes are one placement: the image is resized to ``rows.resized x columns.resized`` and laid on
the canvas at an offset, which is negative where the canvas crops. Coordinates are those of pixel
centres (pixel k of a side of n covers k..k+1, its centre is at k + 1/2), as in
``align_corners=False``; tests of what lies inside are done on integers, so no rounding decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .footprints import Footprint, Frame, Pixels, footprint, pixels_in
from .placement import NearestPixels, Placement
from .roi import Mask
from .sizes import Size, as_size, height_and_width, is_side
from .tiling import Tiling

_MODES = ("squash", "pad", "crop", "native")
# The papers' 224 of 256 and 320 of 366.
_CROP_RATIO = 0.875


@dataclass(frozen=True)
class Geometry:
    """How images are brought to the canvas that a network sees, (H, W) pixels.

    Parameters
    ----------
    mode : {"squash", "pad", "crop", "native"}
        "squash" resizes to the canvas and does not keep the aspect. "pad" resizes to what fits into
        the canvas and repeats the edge pixels on two sides. "crop" is the papers': the image is resized
        to what covers more than the canvas, and the centre is cut out. "native" does not resize: the
        canvas is what tiles cover that begin at the upper left corner, and edge pixels are repeated
        below and to the right.
    image_size : int or tuple of two ints
        Side of a square canvas, or height and width; "native": of a tile.
    resize : int, default=None
        For "crop" on a square only: length of the shorter side before the cut. None: what covers a
        canvas whose sides are ``1 / 0.875`` times as long, rounded: 256 for 224, 366 for 320.
    tiling : Tiling, default=None
        For "native" only: the tiles, of which an image has as many as it needs.

    Raises
    ------
    ValueError
        If the mode is unknown, a size is no positive integer, or `resize` is less than
        `image_size` or given for another mode or a canvas that is no square.
    """

    mode: str
    image_size: Size
    resize: int | None = None
    tiling: Tiling | None = None

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise ValueError(f"geometry must be one of {_MODES}; got {self.mode!r}.")
        if as_size(self.image_size) != self.image_size:
            raise ValueError(f"image_size must be written {as_size(self.image_size)!r}.")
        if self.resize is None:
            return
        if not is_side(self.resize):
            raise ValueError(f"resize must be a positive integer; got {self.resize!r}.")
        if self.mode != "crop":
            raise ValueError(f"resize is for geometry 'crop' only; got it with {self.mode!r}.")
        if isinstance(self.image_size, tuple):
            raise ValueError(
                f"resize={self.resize} is for a square canvas; with image_size={self.image_size} leave "
                "resize=None."
            )
        if self.resize < self.image_size:
            raise ValueError(
                f"resize must be image_size at least, or there is nothing to crop; got "
                f"resize={self.resize} and image_size={self.image_size}."
            )

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of the canvas; "native": of that of one tile."""
        return height_and_width(self.image_size)

    def canvas_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the canvas of an image, in pixels."""
        return self.canvas if self.tiling is None else self.tiling.of((height, width)).canvas

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Bring an image to the canvas.

        Parameters
        ----------
        image : ndarray of shape (H, W, 3)
            uint8 or float32, any size.

        Returns
        -------
        ndarray of shape (*canvas, 3)
            Of the same type. Bilinear with antialiasing; uint8 is rounded, as in the official
            pipelines. An image that has the size already is given back as it is.
        """
        rows, columns = self.placement(*image.shape[:2])
        resized = _resized(image, rows.resized, columns.resized)
        shown = resized[rows.visible(), columns.visible()]
        padding = (rows.padding(), columns.padding(), (0, 0))
        return np.pad(shown, padding, mode="edge") if np.any(padding) else shown

    def keeps(self, height: int, width: int) -> bool:
        """Whether images of this size are given back as they are by `apply`."""
        sides = zip(self.placement(height, width), self.canvas_of(height, width), strict=True)
        return all(side == (size, size, 0, size) for side, size in sides)

    def distortion(self, height: int, width: int) -> float:
        """Tell by which factor the aspect of an image is changed, 1 at least."""
        if self.mode != "squash":
            return 1.0
        rows, columns = self.canvas
        factor = height * columns / (width * rows)
        return max(factor, 1 / factor)

    def content(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Tell where on the canvas the image is.

        Parameters
        ----------
        height, width : int
            Of the image.

        Returns
        -------
        top, bottom, left, right : int
            Canvas pixels, half-open: the whole canvas but for "pad".
        """
        rows, columns = self.placement(height, width)
        return (*rows.content(), *columns.content())

    def restore(
        self,
        canvas_map: np.ndarray,
        height: int,
        width: int,
        shape: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Bring a map of the canvas back to the coordinates of the image.

        Every pixel centre of the image is looked up on the canvas, bilinearly, never beyond the
        edge of the image's content.

        Parameters
        ----------
        canvas_map : ndarray of the canvas's shape
            One value for each pixel of the canvas.
        height, width : int
            Of the image.
        shape : tuple of two ints, default=None
            Rows and columns of the result, if it is to have others than the image.

        Returns
        -------
        ndarray of shape (height, width) or `shape`, of the type of `canvas_map`
            NaN where the centre of the pixel lies outside the crop; no NaN in the other modes.

        Raises
        ------
        ValueError
            If the map has not the shape of the canvas.
        """
        canvas = self.canvas_of(height, width)
        if canvas_map.shape != canvas:
            raise ValueError(
                f"canvas_map must have the shape of the canvas, {canvas}; got {canvas_map.shape}."
            )
        values = np.asarray(canvas_map)
        points = (height, width) if shape is None else shape
        everywhere = (slice(0, points[0]), slice(0, points[1]))
        restored = self.restore_block(
            lambda rows, columns: values[rows, columns], (height, width), points, *everywhere
        )
        return restored.astype(values.dtype, copy=False)

    def restore_block(
        self,
        window: Callable[[slice, slice], np.ndarray],
        shape: tuple[int, int],
        points: tuple[int, int],
        rows: slice,
        columns: slice,
    ) -> np.ndarray:
        """Bring a block of a map back as :meth:`restore` does, from what it looks up on the canvas.

        Parameters
        ----------
        window : callable
            Gives rows and columns of the map of the canvas.
        shape : tuple of two ints
            Height and width of the image.
        points : tuple of two ints
            Rows and columns of the whole result.
        rows, columns : slice
            Of the result, those of the block.

        Returns
        -------
        ndarray
            NaN where the centre of a pixel lies outside the crop.
        """
        down, across = (
            side._replace(length=n).looked_up(some)
            for side, n, some in zip(self.placement(*shape), points, (rows, columns), strict=True)
        )
        size = rows.stop - rows.start, columns.stop - columns.start
        if not len(down.weight) or not len(across.weight):
            return np.full(size, np.nan)
        values = window(down.canvas, across.canvas)
        values = _between(values[down.first], values[down.second], down.weight[:, None])
        # np.take gathers columns three times as fast as an index does.
        left, right = (values.take(at, axis=1) for at in (across.first, across.second))
        values = _between(left, right, across.weight)
        if values.shape == size:
            return values
        restored = np.full(size, np.nan, dtype=values.dtype)
        restored[down.seen, across.seen] = values
        return restored

    def restore_bands(
        self, bands: Iterable[tuple[slice, np.ndarray]], height: int, width: int
    ) -> np.ndarray:
        """Bring a map back as :meth:`restore` does, while its rows are made.

        Parameters
        ----------
        bands : iterable of pairs
            Rows of the canvas one after the other, and their values, (n_rows, W).
        height, width : int
            Of the image.

        Returns
        -------
        ndarray of shape (height, width), float32
        """
        rows, columns = self.placement(height, width)
        (above, below, weight), (left, right, across) = rows.sampling(), columns.sampling()
        restored = np.full((height, width), np.nan, dtype=np.float32)
        first, done, last_row = rows.seen().start, 0, np.empty((0, columns.canvas))
        for band, values in bands:
            known = np.concatenate([last_row, values]).astype(np.float32)
            offset, last_row = band.stop - len(known), values[-1:]
            now = slice(done, int(np.searchsorted(below, band.stop)))
            mixed = _between(
                known[above[now] - offset], known[below[now] - offset], weight[now, None]
            )
            mixed = _between(mixed.take(left, axis=1), mixed.take(right, axis=1), across)
            restored[first + now.start : first + now.stop, columns.seen()] = mixed
            done = now.stop
        return restored

    def nearest(self, height: int, width: int) -> tuple[NearestPixels, NearestPixels]:
        """Tell which pixels of an image look up each pixel of the canvas.

        Where :meth:`restore` interpolates, this takes the canvas pixel in which the centre of an
        image pixel lies: what is decided on the canvas is carried to the image as it is.

        Parameters
        ----------
        height, width : int
            Of the image.

        Returns
        -------
        rows, columns : NearestPixels
        """
        rows, columns = self.placement(height, width)
        return rows.nearest(), columns.nearest()

    def footprints(self, frames: Sequence[Frame], grid: tuple[int, int]) -> list[Footprint]:
        """Tell where on the canvas images lie, and which patches see them and not padding.

        Parameters
        ----------
        frames : sequence of Frame
            Of the images.
        grid : tuple of two ints
            Rows and columns (h, w) of the patch grid; "native": of that over a tile.

        Returns
        -------
        list of Footprint
            One per image; those of one size and mask share theirs. One patch at least counts.
        """
        return [footprint(self, *frame, grid) for frame in frames]

    def pixels(self, shape: tuple[int, int], mask: Mask | None = None) -> Pixels:
        """Tell which pixels of the canvas count: those that hold the image, and lie in its mask.

        Raises
        ------
        ValueError
            If none does: the mask lies outside of the crop.
        """
        return self.content(*shape) if mask is None else pixels_in(self, mask)

    def valid_cells(
        self, height: int, width: int, grid_height: int, grid_width: int
    ) -> tuple[int, int, int, int]:
        """Tell which cells of a patch grid over the canvas see the image and not its padding.

        Parameters
        ----------
        height, width : int
            Of the image.
        grid_height, grid_width : int
            Of the grid of patches that covers the canvas.

        Returns
        -------
        r0, r1, c0, c1 : int
            Half-open ranges of the cells whose centre lies on the image, one cell at least; the
            whole grid but for "pad".
        """
        rows, columns = self.placement(height, width)
        return (*rows.cells(grid_height), *columns.cells(grid_width))

    def placement(self, height: int, width: int) -> tuple[Placement, Placement]:
        """Place the rows, and the columns, of an image of a height and width on the canvas."""
        lengths, sizes = (height, width), self.canvas_of(height, width)
        if self.mode == "native":
            return Placement(height, height, 0, sizes[0]), Placement(width, width, 0, sizes[1])
        if self.mode == "squash":
            return Placement(height, sizes[0], 0, sizes[0]), Placement(width, sizes[1], 0, sizes[1])
        if self.mode == "pad":
            # The side that is longer, measured by the canvas, fills it.
            size, longer = _first(height * sizes[1] >= width * sizes[0], sizes, lengths)
            rows, columns = (max(1, round(n * size / longer)) for n in lengths)
            return (
                Placement(height, rows, (sizes[0] - rows) // 2, sizes[0]),
                Placement(width, columns, (sizes[1] - columns) // 2, sizes[1]),
            )
        covered = self._covered()
        target, shorter = _first(height * covered[1] <= width * covered[0], covered, lengths)
        # torchvision's roundings: int() for the longer side, round() for the cut.
        rows, columns = (target * n // shorter for n in lengths)
        return (
            Placement(height, rows, -round((rows - sizes[0]) / 2), sizes[0]),
            Placement(width, columns, -round((columns - sizes[1]) / 2), sizes[1]),
        )

    def _covered(self) -> tuple[int, int]:
        """Tell what an image covers before it is cut."""
        if self.resize is not None:
            return self.resize, self.resize
        height, width = self.canvas
        return round(height / _CROP_RATIO), round(width / _CROP_RATIO)


def _first(is_first: bool, sizes: tuple[int, int], lengths: tuple[int, int]) -> tuple[int, int]:
    """Size and length of the first side, or of the second."""
    i = 0 if is_first else 1
    return sizes[i], lengths[i]


def _between(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Interpolate, overwriting both: full-size maps are worth the two temporaries saved."""
    second -= first
    second *= weight
    first += second
    return first


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    size = (width, height)
    if image.dtype == np.uint8:
        picture = Image.fromarray(np.ascontiguousarray(image))
        return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
    # Pillow has no float RGB.
    resized = np.empty((height, width, 3), dtype=np.float32)
    for channel in range(3):
        picture = Image.fromarray(np.ascontiguousarray(image[:, :, channel]))
        resized[:, :, channel] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
    return resized
