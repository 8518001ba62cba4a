"""One image in three panels: as it is, its heat map, and with outlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skad._common.forks import LOADING
from skad._scoring.regions import Region
from skad.inspection._drawing import FOUND, TRUTH
from skad.inspection._shown import Shown

_FOUND_WIDTH = 1.8
STAR: dict[str, Any] = {
    "marker": "*",
    "markersize": 11,
    "markerfacecolor": "cyan",
    "markeredgecolor": "black",
}
"""Style of the mark on the most anomalous pixel."""


SEEN: dict[str, Any] = {"colors": "white", "linewidths": 1.5, "linestyles": "dotted"}
"""Style of the edge of what was looked at: a region of interest, or a crop."""
SEAM: dict[str, Any] = {"color": "white", "linewidth": 0.8, "linestyle": "dashed"}
"""Style of the lines along which tiles meet."""


def colour_range(shown: Sequence[Shown], threshold: float) -> tuple[float, float]:
    """Find the ends of a colour scale that several heat maps share.

    Parameters
    ----------
    shown : sequence of Shown
    threshold : float
        Included in the range, so that heat maps far below it stay dark.

    Returns
    -------
    low, high : float
    """
    lows, highs = [picture.low for picture in shown], [picture.high for picture in shown]
    return min(*lows, threshold), max(*highs, threshold)


def draw_panels(
    axes: Sequence[Any], picture: Shown, threshold: float, cmap: str, vmin: float, vmax: float
) -> Any:
    """Draw one image on three axes: as it is, its heat map, and with outlines.

    Parameters
    ----------
    axes : sequence of 3 matplotlib Axes
    picture : Shown
    threshold : float
        Level of the green outline, where the picture has no regions.
    cmap : str
    vmin, vmax : float
        Ends of the colour scale.

    Returns
    -------
    matplotlib AxesImage
        The drawn heat map, for a colour bar.
    """
    heatmap, where = picture.heatmap, picture.edges()
    axes[0].imshow(picture.image, extent=where)
    drawn = axes[1].imshow(heatmap, extent=where, cmap=cmap, vmin=vmin, vmax=vmax)
    axes[2].imshow(picture.image, extent=where)
    if min(heatmap.shape) > 1:  # contours need two rows: a 1 x F strip has none
        _outline(axes[2], picture, np.isfinite(heatmap).astype(float), 0.5, **SEEN)
        if picture.mask is not None:
            _outline(axes[2], picture, picture.mask, 0.5, colors=TRUTH, linewidths=1.2)
        if picture.regions is None:
            _outline(axes[2], picture, heatmap, threshold, colors=FOUND, linewidths=_FOUND_WIDTH)
    if picture.seams is not None:
        for place in picture.seams.rows:
            axes[1].axhline(place, **SEAM)
        for place in picture.seams.columns:
            axes[1].axvline(place, **SEAM)
    if picture.regions:
        _outline_regions(axes[2], picture.regions)
    row, column = picture.peak
    axes[2].plot(column, row, **STAR)
    height, width = picture.shape
    for axis in axes:
        # Blocks at the right and lower edges may reach beyond the image.
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axis.set_axis_off()
    return drawn


def _outline_regions(axis: Any, regions: Sequence[Region]) -> None:
    """Draw the contours of regions, along the edges of pixels."""
    with LOADING:
        from matplotlib.collections import PolyCollection

    # Pixels are drawn around their indices: the corner of pixel (0, 0) lies at (-0.5, -0.5).
    polygons = [polygon[:, ::-1] - 0.5 for region in regions for polygon in region.contour]
    axis.add_collection(
        PolyCollection(polygons, facecolors="none", edgecolors=FOUND, linewidths=_FOUND_WIDTH)
    )


def _outline(axis: Any, picture: Shown, values: np.ndarray, level: float, **style: Any) -> None:
    """Draw where values cross a level, if they do: matplotlib warns about an empty contour."""
    if np.nanmin(values) < level < np.nanmax(values):
        axis.contour(*picture.centres(), values, levels=[level], **style)
