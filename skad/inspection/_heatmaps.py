"""Images beside their heat maps."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from skad._common.forks import LOADING
from skad._common.numbers import refuse_masked
from skad._common.text import readable
from skad._images import as_image_source, one_call
from skad._scoring.regions import Region
from skad.inspection._checks import check_heatmap, check_number
from skad.inspection._drawing import FOUND, TRUTH, Drawn, new_figure
from skad.inspection._fitted import decode_once, map_images
from skad.inspection._panels import SEAM, SEEN, STAR, colour_range, draw_panels
from skad.inspection._seams import Seams, seams_of
from skad.inspection._shown import Shown
from skad.model_selection._scorers import as_mask, list_masks
from skad.model_selection._unwrap import unwrap_estimator

_PANEL = 3.0  # width, in inches
_TITLE_WIDTH = 42  # characters per line that fit above a panel
# Limits of a row's height, in widths of a panel.
_FLATTEST, _TALLEST = 0.35, 1.6


class HeatmapDisplay(Drawn):
    """Images beside their heat maps and outlines of the regions above the threshold.

    Green: regions, as ``predict_regions`` finds them: an image that ``predict`` calls defective has one,
    a good one has none (with ``image_score="map"``). Orange: ground truth. Star: the most anomalous
    pixel. Use
    :meth:`from_estimator` or :meth:`from_predictions` to create one.

    Parameters
    ----------
    images : list of ndarray of shape (H, W, 3)
        uint8, or floats in 0..1.
    heatmaps : list of ndarray of shape (H, W)
        Higher = more anomalous; NaN outside a region of interest or a centre crop, whose edge is a
        dotted white line.
    threshold : float
        Level of the outline, where there are no `regions`.
    titles : sequence of str, default=None
        One per row, shown above the image.
    masks : sequence of ndarray of shape (H, W), path or None, default=None
        Ground truth; non-zero = defective.
    regions : Regions or sequence of lists of Region, default=None
        What is outlined. None: where heat maps are above the threshold.
    seams : sequence of Seams, default=None
        Where the tiles of each image meet, dashed in its heat map; None: not shown.

    Raises
    ------
    ValueError
        If heat maps, titles, masks or regions do not match the images.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes, of shape (n, 3)
    colorbar_ : matplotlib Colorbar
        Of all heat maps; a green line marks the threshold.

    Examples
    --------
    >>> import numpy as np
    >>> from skad.inspection import HeatmapDisplay
    >>> image = np.zeros((16, 16, 3), dtype=np.uint8)
    >>> heatmap = np.add.outer(np.arange(16.0), np.arange(16.0))
    >>> display = HeatmapDisplay.from_predictions([image], [heatmap], threshold=20.0)
    >>> display.axes_.shape
    (1, 3)
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        heatmaps: Sequence[np.ndarray],
        threshold: float,
        titles: Sequence[str] | None = None,
        masks: Sequence[Any] | None = None,
        regions: Sequence[list[Region] | None] | None = None,
        seams: Sequence[Seams] | None = None,
    ) -> None:
        n = len(images)
        self.images = images
        self.heatmaps = [_as_heatmap(i, heatmap) for i, heatmap in enumerate(heatmaps)]
        self.threshold = threshold
        self.titles = [""] * n if titles is None else list(titles)
        self.regions = [None] * n if regions is None else list(regions)
        self.seams = [None] * n if seams is None else list(seams)
        given = [None] * n if masks is None else list_masks(masks)
        named = (
            *(("heat maps", self.heatmaps), ("titles", self.titles), ("masks", given)),
            *(("lists of regions", self.regions), ("lists of seams", self.seams)),
        )
        for name, items in named:
            check_number(name, items, n)
        self.masks = [
            None if mask is None else as_mask(mask, heatmap.shape, f"mask {i}")
            for i, (mask, heatmap) in enumerate(zip(given, self.heatmaps, strict=True))
        ]
        for i, image in enumerate(images):
            heatmap = self.heatmaps[i]
            check_heatmap(i, heatmap, self.masks[i])
            if image.shape[:2] != heatmap.shape:
                raise ValueError(
                    f"image {i} has shape {image.shape[:2]}, its heat map {heatmap.shape}: they must "
                    "have the same size. Resize one of them."
                )

    @classmethod
    @one_call()
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        masks: Sequence[Any] | None = None,
        titles: Sequence[str] | None = None,
        seams: bool = False,
        vmin: float | None = None,
        vmax: float | None = None,
    ) -> HeatmapDisplay:
        """Score images and draw them with their heat maps.

        Parameters
        ----------
        estimator : fitted detector, or Pipeline that ends with one
            After a transformer, the transformed images are drawn.
        X : images
            A handful, in any form that the detector takes.
        masks : sequence of ndarray of shape (H, W), path or None, default=None
            Ground truth, outlined in orange.
        titles : sequence of str, default=None
            None: what the detector calls each image, and how far its score is from the threshold.
        seams : bool, default=False
            Draw where tiles meet into the heat maps, for a detector with `tiles`.
        vmin, vmax : float, default=None
            Ends of the colour scale; fix them to compare displays. None: the lowest and the highest
            of all heat maps and the threshold.

        Returns
        -------
        HeatmapDisplay

        Raises
        ------
        NotFittedError, TypeError
            If the estimator is not fitted, or has no heat maps.
        ValueError
            If masks or titles do not match the images, or there are no tiles whose seams could be shown.
        """
        unwrapped = unwrap_estimator(estimator)
        detector, X = unwrapped.detector, unwrapped.images(X)
        images, X = decode_once(detector, X)
        heatmaps, scores, regions = map_images(detector, X)
        if titles is None:
            titles = [_verdict(score - detector.offset_) for score in scores]
        lines = [seams_of(detector, image.shape[:2]) for image in images] if seams else None
        threshold = detector.heatmap_threshold_
        display = cls(images, heatmaps, threshold, titles, masks, regions, lines)
        return display.plot(vmin=vmin, vmax=vmax)

    @classmethod
    def from_predictions(
        cls,
        X: Any,
        heatmaps: Sequence[np.ndarray],
        *,
        threshold: float,
        titles: Sequence[str] | None = None,
        masks: Sequence[Any] | None = None,
        regions: Sequence[list[Region] | None] | None = None,
        vmin: float | None = None,
        vmax: float | None = None,
    ) -> HeatmapDisplay:
        """Draw images with heat maps that were computed before.

        Parameters
        ----------
        X : images
        heatmaps : sequence of ndarray of shape (H, W)
        threshold : float
            Level of the outline, usually ``heatmap_threshold_``.
        titles : sequence of str, default=None
        masks : sequence of ndarray of shape (H, W), path or None, default=None
        regions : Regions, default=None
            Outlined in place of what is above the threshold; from ``predict_regions``.
        vmin, vmax : float, default=None
            As for :meth:`from_estimator`.

        Returns
        -------
        HeatmapDisplay

        Raises
        ------
        ValueError
            If heat maps, titles, masks or regions do not match the images.
        """
        source = as_image_source(X)
        images = [source.load(i) for i in range(len(source))]
        display = cls(images, heatmaps, threshold, titles, masks, regions)
        return display.plot(vmin=vmin, vmax=vmax)

    def plot(
        self, *, cmap: str = "inferno", vmin: float | None = None, vmax: float | None = None
    ) -> HeatmapDisplay:
        """Draw one row per image: the image, its heat map, and the image with outlines.

        All heat maps share one colour scale, so that rows can be compared. Images with a side of more
        than 1,000 pixels are reduced; the heat map keeps the maximum of each block, so that every
        pixel above the threshold is outlined.

        Parameters
        ----------
        cmap : str, default="inferno"
            Colours of the heat maps.
        vmin, vmax : float, default=None
            Ends of the colour scale; None: the lowest and the highest of all heat maps and the
            threshold.

        Returns
        -------
        HeatmapDisplay
        """
        shown = [
            Shown.of(*parts)
            for parts in zip(
                self.images, self.heatmaps, self.masks, self.regions, self.seams, strict=True
            )
        ]
        low, high = colour_range(shown, self.threshold)
        low, high = low if vmin is None else vmin, high if vmax is None else vmax
        heights = [
            _PANEL * float(np.clip(image.shape[0] / image.shape[1], _FLATTEST, _TALLEST))
            for image in self.images
        ]
        titles = [_wrapped(title) for title in self.titles]
        lines = max(title.count("\n") + 1 for title in titles)
        self._owns_figure = True
        self.figure_ = new_figure(
            3 * _PANEL + 0.9, sum(heights) + len(heights) * (0.12 + 0.16 * lines) + 0.5
        )
        self.axes_ = self.figure_.subplots(
            len(heights), 3, squeeze=False, gridspec_kw={"height_ratios": heights}
        )
        for axes, picture, title in zip(self.axes_, shown, titles, strict=True):
            scale = draw_panels(axes, picture, self.threshold, cmap, low, high)
            axes[0].set_title(title, fontsize=9)
        self.axes_[0, 1].set_title("heat map", fontsize=9)
        self.axes_[0, 2].set_title("what stands out", fontsize=9)
        self.colorbar_ = self.figure_.colorbar(
            scale, ax=self.axes_, fraction=0.03, pad=0.02, label="anomaly"
        )
        if low <= self.threshold <= high:
            self.colorbar_.ax.axhline(self.threshold, color=FOUND, linewidth=2.5)
        self._explain(
            any(picture.mask is not None for picture in shown),
            any(np.isnan(picture.heatmap).any() for picture in shown),
            any(picture.seams is not None for picture in shown),
        )
        return self

    def _explain(self, with_truth: bool, with_edge: bool, with_seams: bool) -> None:
        """Draw the legend of outlines and star under all rows."""
        with LOADING:
            from matplotlib.lines import Line2D

        entries = [
            Line2D([], [], color=FOUND, linewidth=2, label=f"above {self.threshold:.3g}"),
            Line2D([], [], linestyle="", label="highest pixel", **STAR),
        ]
        if with_truth:
            entries.insert(1, Line2D([], [], color=TRUTH, linewidth=2, label="ground truth"))
        if with_edge:
            style = {"color": SEEN["colors"], "linestyle": SEEN["linestyles"], "linewidth": 2}
            entries.append(Line2D([], [], label="edge of what is looked at", **style))
        if with_seams:
            entries.append(Line2D([], [], label="seam of tiles", **SEAM))
        # On grey: lime and white on white are hard to see.
        self.figure_.legend(
            handles=entries,
            loc="outside lower center",
            ncols=len(entries),
            fontsize=9,
            facecolor="#bbbbbb",
            framealpha=1,
        )


def _as_heatmap(i: int, heatmap: Any) -> np.ndarray:
    refuse_masked(heatmap, f"heat map {i}")
    return np.asarray(heatmap)


def _verdict(decision: float) -> str:
    called = "good" if decision >= 0 else "defective"
    return f"{called}\nscore {decision:+.3g} from the threshold"


def _wrapped(title: str) -> str:
    """Break a title into lines that fit above one panel."""
    lines = [textwrap.fill(line, _TITLE_WIDTH) for line in readable(title).split("\n")]
    return "\n".join(lines)
