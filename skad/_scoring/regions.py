"""Regions of an image above a threshold: found on the canvas, told in the coordinates of the image.

Verdict, regions and outlines are decided on one grid, the canvas, where an image is as anomalous as
its most anomalous pixel. So an image has a region exactly if that pixel is above the threshold,
whatever the size of the image: nothing is interpolated any more, and a region covers one pixel of the
image at least.

A map is blurred: a patch sees 24 to 48 pixels of the canvas, so what is above the threshold is a blob
some 15 pixels wider than a crack. Within it, a region is what reaches half of the way from the usual
peak of a good image to the highest value near by (`sharpen`), as the width of a blurred line is
measured at half of its maximum. That shapes regions; it neither adds nor removes one.

No array here is as large as the image: rows and columns of the canvas are counted as often as pixels
of the image look them up.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from skad._common.files import write_text
from skad._common.forks import LOADING
from skad._scoring.contours import trace
from skad._scoring.large_maps import LargeMap
from skad._scoring.maps import BLOCK, Block

if TYPE_CHECKING:
    import pandas as pd

    from skad._images.geometry import Geometry
    from skad._images.placement import NearestPixels

# How far the blur of a map reaches, in pixels of the canvas: half of what a patch sees at strides of 8
# (24 pixels) and 16 (48), on the mean. benchmarks/region_shapes.py compares others.
_REACH = 18
# Pixels that touch at a corner belong to one region, as in the metrics.
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)
_FIGURES = (
    *("top", "left", "bottom", "right", "area", "fraction", "centroid_row", "centroid_column"),
    *("peak", "peak_row", "peak_column", "mean"),
)


class Blocks(NamedTuple):
    """Pixels of an image that look up one canvas pixel each, block by block."""

    cells: np.ndarray
    """(h, w): one entry per block."""
    rows: np.ndarray
    """(h + 1,) int: first rows of the blocks, and the end."""
    columns: np.ndarray
    """(w + 1,) int: first columns of the blocks, and the end."""


@dataclass(frozen=True)
class Region:
    """A part of an image that is above the threshold, in the coordinates of the image.

    Positions are (row, column), counted in pixels from the upper left pixel, which is (0, 0).
    """

    box: tuple[int, int, int, int]
    """Top, left, bottom and right; bottom and right are the first row and column after the region."""
    area: int
    """Number of pixels; at least 1."""
    fraction: float
    """Of the image that the region covers."""
    centroid: tuple[float, float]
    """Mean row and column of its pixels."""
    peak: float
    """The highest anomaly in the region, as the detector sees it."""
    peak_at: tuple[int, int]
    """The pixel where the region is most anomalous."""
    mean: float
    """Mean anomaly of its pixels."""
    _blocks: Blocks = field(repr=False, compare=False)

    @property
    def mask(self) -> np.ndarray:
        """Which pixels of the box belong to the region: bool, as large as the box.

        ``image[top:bottom, left:right][region.mask]`` are its pixels. Made anew at each access.
        """
        cells, rows, columns = self._blocks
        return cells.repeat(np.diff(rows), axis=0).repeat(np.diff(columns), axis=1)

    @property
    def contour(self) -> list[np.ndarray]:
        """Polygons around the region: arrays of shape (k, 2), (row, column) of corners of pixels.

        Corner (0, 0) is the upper left corner of the image, at (-0.5, -0.5) where matplotlib draws
        it. The outer polygon runs clockwise, those around holes counter-clockwise; the first corner
        is not repeated at the end. Made anew at each access.
        """
        cells, rows, columns = self._blocks
        polygons = trace(cells)
        return [np.column_stack([rows[at[:, 0]], columns[at[:, 1]]]) for at in polygons]

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain numbers.

        Returns
        -------
        dict
            Of int and float: top, left, bottom, right, area, fraction, centroid_row, centroid_column,
            peak, peak_row, peak_column, mean.
        """
        values = (
            *self.box, self.area, self.fraction, *self.centroid, self.peak, *self.peak_at, self.mean
        )  # fmt: skip
        return dict(zip(_FIGURES, values, strict=True))


class Regions(Sequence[list[Region]]):
    """Regions of n images: ``regions[i]`` is the list of those of image i, highest peak first.

    An image in which nothing is above the threshold has an empty list.

    Parameters
    ----------
    images : iterable of lists of Region
    shapes : sequence of (H, W)
        Heights and widths of the images.

    Attributes
    ----------
    shapes : list of (H, W)

    Examples
    --------
    >>> regions = det.predict_regions(X)  # doctest: +SKIP
    >>> for region in regions[0]:  # doctest: +SKIP
    ...     print(region.box, region.area, region.peak)
    >>> regions.to_frame().groupby("image")["area"].sum()  # doctest: +SKIP
    """

    def __init__(self, images: Iterable[list[Region]], shapes: Sequence[tuple[int, int]]) -> None:
        self._images = list(images)
        self.shapes = list(shapes)
        if len(self._images) != len(self.shapes):
            raise ValueError(
                f"{len(self._images)} lists of regions, but {len(self.shapes)} shapes: pass one of "
                "each per image."
            )

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> list[Region]: ...
    @overload
    def __getitem__(self, index: slice) -> Regions: ...

    def __getitem__(self, index: int | slice) -> list[Region] | Regions:
        if isinstance(index, slice):
            return Regions(self._images[index], self.shapes[index])
        return self._images[index]

    def __repr__(self) -> str:
        n = sum(map(len, self._images))
        return f"<Regions: {n} in {len(self)} image{'' if len(self) == 1 else 's'}>"

    def labels(self, index: int) -> np.ndarray:
        """Tell to which region each pixel of one image belongs.

        Parameters
        ----------
        index : int
            Of the image.

        Returns
        -------
        ndarray of shape (H, W), int
            1 for ``regions[index][0]``, 2 for the next; 0 outside of all.
        """
        numbers = np.zeros(self.shapes[index], dtype=np.int32)
        for number, region in reversed([*enumerate(self._images[index], 1)]):
            top, left, bottom, right = region.box
            numbers[top:bottom, left:right][region.mask] = number
        return numbers

    def mask(self, index: int) -> np.ndarray:
        """Mark all regions of one image.

        Parameters
        ----------
        index : int
            Of the image.

        Returns
        -------
        ndarray of shape (H, W), bool
        """
        return self.labels(index) > 0

    def to_frame(self) -> pd.DataFrame:
        """Make a table of all regions; needs pandas.

        Returns
        -------
        pandas.DataFrame
            One row per region: ``image``, the index of its image, and what :meth:`Region.to_dict`
            returns. Images without regions have no row.
        """
        with LOADING:
            import pandas as pd

        rows = [
            {"image": i, **region.to_dict()}
            for i, found in enumerate(self._images)
            for region in found
        ]
        return pd.DataFrame(rows, columns=["image", *_FIGURES])

    def to_json_lines(
        self, path: str | os.PathLike[str] | None = None, *, contours: bool = False
    ) -> str | None:
        """Write one line of JSON per image, images without regions included.

        Parameters
        ----------
        path : path-like, default=None
            File to write, replaced if it exists. None: return the lines.
        contours : bool, default=False
            Also write the contour of each region.

        Returns
        -------
        str or None
            The lines, if there is no `path`. Each is an object with ``image`` (its index),
            ``height``, ``width`` and ``regions``, a list of what :meth:`Region.to_dict` returns.
            A number that is not finite is null.
        """
        text = "".join(line + "\n" for line in self._json_lines(contours))
        if path is None:
            return text
        write_text(path, text)
        return None

    def _json_lines(self, contours: bool) -> Iterator[str]:
        for i, (found, (height, width)) in enumerate(zip(self._images, self.shapes, strict=True)):
            regions = [_as_json(region, contours) for region in found]
            line = {"image": i, "height": height, "width": width, "regions": regions}
            yield json.dumps(line, allow_nan=False)


def regions_of(
    canvas: np.ndarray | LargeMap,
    threshold: float,
    geometry: Geometry,
    shape: tuple[int, int],
    *,
    min_area: float = 0,
    usual_peak: float | None = None,
) -> list[Region]:
    """Find the regions of an image above a threshold.

    Parameters
    ----------
    canvas : ndarray of shape (H, W) or LargeMap
        Anomaly of each pixel of the canvas; NaN where there is no image.
    threshold : float
        Pixels above it belong to a region.
    geometry : Geometry
        Where on the canvas the image is.
    shape : (H, W)
        Of the image.
    min_area : float, default=0
        Regions of fewer pixels of the image are left out.
    usual_peak : float, default=None
        Highest value of the map of a usual good image, by which :func:`sharpen` shapes regions. None:
        a region is all that is above the threshold.

    Returns
    -------
    list of Region
        The highest peak first; with ``min_area=0`` empty exactly if no value is above the threshold.
    """
    near_rows, near_columns = geometry.nearest(*shape)
    found = []
    for rows, columns, values in _components(canvas, threshold):
        if usual_peak is not None:
            values = sharpen(values, min(usual_peak, threshold))
        blocks = _carry(values, near_rows.of(rows), near_columns.of(columns))
        found.append(_measure(blocks, float(values.max()), shape))
    large = [region for region in found if region.area >= min_area]
    return sorted(large, key=lambda region: -region.peak)


def _components(
    canvas: np.ndarray | LargeMap, threshold: float
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield rows, columns and values of each component above a threshold; -inf around it."""
    with LOADING:  # the import takes longer than most predictions
        from scipy.ndimage import find_objects, label
    windows = [(0, 0, canvas)] if isinstance(canvas, np.ndarray) else _windows(canvas, threshold)
    for top, left, window in windows:
        labels, _ = label(window > threshold, structure=_EIGHT_NEIGHBOURS)
        for number, (rows, columns) in enumerate(find_objects(labels), 1):
            values = np.where(labels[rows, columns] == number, window[rows, columns], -np.inf)
            yield (
                slice(top + rows.start, top + rows.stop),
                slice(left + columns.start, left + columns.stop),
                values,
            )


def _windows(canvas: LargeMap, threshold: float) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the pieces of a large map in which anything is above a threshold, each with its corner.

    Blocks that touch make one piece, so that no component lies in two.
    """
    with LOADING:
        from scipy.ndimage import find_objects, label
    above = np.zeros([-(-side // BLOCK) for side in canvas.shape], dtype=bool)
    for block in canvas.blocks():
        above[_place(block)] = (block.values > threshold).any()
    groups, _ = label(above, structure=_EIGHT_NEIGHBOURS)
    for number, at in enumerate(find_objects(groups), 1):
        top, left = (some.start * BLOCK for some in at)
        sides = [
            min(some.stop * BLOCK, side) - some.start * BLOCK
            for some, side in zip(at, canvas.shape, strict=True)
        ]
        window = np.full(sides, -np.inf)
        for block in canvas.blocks(groups == number):
            row, column = block.rows.start - top, block.columns.start - left
            height, width = block.values.shape
            window[row : row + height, column : column + width] = block.values
        yield top, left, window


def _place(block: Block) -> tuple[int, int]:
    return block.rows.start // BLOCK, block.columns.start // BLOCK


def sharpen(values: np.ndarray, base: float, reach: int = _REACH) -> np.ndarray:
    """Leave out what is less than half of the way from a base to the highest value near by.

    Parameters
    ----------
    values : ndarray of shape (h, w)
        -inf at pixels that are out already; all others above `base`.
    base : float
    reach : int
        Near by are pixels at most as many rows and columns away.

    Returns
    -------
    ndarray of shape (h, w)
        -inf at all that is left out; never the highest value.
    """
    with LOADING:
        from scipy.ndimage import maximum_filter
    highest = maximum_filter(values, size=2 * reach + 1, mode="constant", cval=-np.inf)
    return np.where(values >= base / 2 + highest / 2, values, -np.inf)


def _carry(values: np.ndarray, rows: NearestPixels, columns: NearestPixels) -> Blocks:
    """Carry a component of the canvas to the image; its values are -inf around it."""
    tall, wide = rows.counts() > 0, columns.counts() > 0
    looked_up = values[np.ix_(tall, wide)]
    inside = looked_up > -np.inf
    if not inside.any():
        # A small image, none of whose pixels has its centre in the component.
        row, column = np.unravel_index(values.argmax(), values.shape)
        at = rows.containing[row], columns.containing[column]
        return Blocks(values[row, column].reshape(1, 1), at[0] + np.arange(2), at[1] + np.arange(2))
    # Rows and columns that only cells of no image pixel belong to are no part of the box.
    ((r0, r1), (c0, c1)) = ((at.min(), at.max() + 1) for at in np.nonzero(inside))
    return Blocks(
        looked_up[r0:r1, c0:c1],
        np.append(rows.edges[:-1][tall], rows.edges[-1])[r0 : r1 + 1],
        np.append(columns.edges[:-1][wide], columns.edges[-1])[c0 : c1 + 1],
    )


def _measure(blocks: Blocks, peak: float, shape: tuple[int, int]) -> Region:
    values, rows, columns = blocks
    inside = values > -np.inf
    areas = np.outer(np.diff(rows), np.diff(columns)) * inside
    area = int(areas.sum())
    # The mean index in rows 3, 4 and 5 is 4.
    centres = (rows[:-1] + rows[1:] - 1) / 2, (columns[:-1] + columns[1:] - 1) / 2
    highest = np.unravel_index(values.argmax(), values.shape)
    return Region(
        box=(int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])),
        area=area,
        fraction=area / (shape[0] * shape[1]),
        centroid=(
            float(areas.sum(axis=1) @ centres[0]) / area,
            float(areas.sum(axis=0) @ centres[1]) / area,
        ),
        peak=peak,
        peak_at=(int(centres[0][highest[0]]), int(centres[1][highest[1]])),
        mean=float((areas[inside] * values[inside]).sum()) / area,
        _blocks=Blocks(inside, rows, columns),
    )


def _as_json(region: Region, contours: bool) -> dict[str, Any]:
    figures: dict[str, Any] = {
        name: value if math.isfinite(value) else None for name, value in region.to_dict().items()
    }
    if contours:
        figures["contour"] = [polygon.tolist() for polygon in region.contour]
    return figures
