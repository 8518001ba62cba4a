"""Pictures of what a detector sees; needs matplotlib (``pip install "skad[plot]"``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skad._images import as_image_source


class HeatmapDisplay:
    """Images beside their heat maps and the outline of what lies above the threshold.

    Use :meth:`from_estimator` or :meth:`from_predictions` to create one.

    Parameters
    ----------
    images : list of ndarray of shape (H, W, 3)
        uint8, or floats in 0..1.
    heatmaps : list of ndarray of shape (H, W)
        Higher = more anomalous; NaN where nothing was looked at.
    threshold : float
        Level of the outline.
    titles : list of str
        A title a row, shown above the image.
    masks : list of ndarray of shape (H, W) or None
        Ground truth; non-zero = defective.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes, of shape (n, 3)
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        heatmaps: Sequence[np.ndarray],
        threshold: float,
        titles: Sequence[str],
        masks: Sequence[np.ndarray | None],
    ) -> None:
        self.images = images
        self.heatmaps = heatmaps
        self.threshold = threshold
        self.titles = titles
        self.masks = masks

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, masks: Sequence[np.ndarray | None] | None = None
    ) -> HeatmapDisplay:
        """Score images and draw them.

        Parameters
        ----------
        estimator : fitted detector
        X : images
            A handful, in any form that the detector takes.
        masks : list of ndarray of shape (H, W) or None, default=None
            Ground truth, outlined in orange.

        Returns
        -------
        HeatmapDisplay
        """
        heatmaps, scores = estimator.predict_heatmap(X, return_scores=True)
        verdicts = np.where(scores >= estimator.offset_, "good", "defective")
        titles = [
            f"{verdict} (score {score - estimator.offset_:+.3g} from the threshold)"
            for verdict, score in zip(verdicts, scores, strict=True)
        ]
        return cls.from_predictions(
            X, heatmaps, threshold=estimator.heatmap_threshold_, titles=titles, masks=masks
        )

    @classmethod
    def from_predictions(
        cls,
        X: Any,
        heatmaps: Sequence[np.ndarray],
        *,
        threshold: float,
        titles: Sequence[str] | None = None,
        masks: Sequence[np.ndarray | None] | None = None,
    ) -> HeatmapDisplay:
        """Draw images and heat maps that are at hand.

        Parameters
        ----------
        X : images
        heatmaps : sequence of ndarray of shape (H, W)
        threshold : float
            Level of the outline, usually ``heatmap_threshold_``.
        titles : sequence of str, default=None
        masks : sequence of ndarray of shape (H, W) or None, default=None

        Returns
        -------
        HeatmapDisplay
        """
        source = as_image_source(X)
        images = [source.load(i) for i in range(len(source))]
        n = len(images)
        display = cls(images, list(heatmaps), threshold, titles or [""] * n, masks or [None] * n)
        return display.plot()

    def plot(self) -> HeatmapDisplay:
        """Draw one row an image: the image, its heat map, the outline.

        All heat maps share one colour scale, so that rows can be compared.

        Returns
        -------
        HeatmapDisplay
        """
        # Figure, not pyplot: no window, no global state, safe on a server.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        n = len(self.images)
        self.figure_ = Figure(figsize=(9.6, 3.3 * n), layout="constrained")
        FigureCanvasAgg(self.figure_)
        self.axes_ = self.figure_.subplots(n, 3, squeeze=False)
        low = min(float(np.nanmin(heatmap)) for heatmap in self.heatmaps)
        high = max(float(np.nanmax(heatmap)) for heatmap in self.heatmaps)
        for axes, image, heatmap, title, mask in zip(
            self.axes_, self.images, self.heatmaps, self.titles, self.masks, strict=True
        ):
            axes[0].imshow(image)
            axes[0].set_title(title, fontsize=10)
            axes[1].imshow(heatmap, cmap="inferno", vmin=low, vmax=high)
            axes[2].imshow(image)
            self._outline(axes[2], heatmap, mask)
            for axis in axes:
                axis.set_axis_off()
        self.axes_[0, 1].set_title("heat map", fontsize=10)
        self.axes_[0, 2].set_title("outline: above the threshold", fontsize=10)
        return self

    def _outline(self, axis: Any, heatmap: np.ndarray, mask: np.ndarray | None) -> None:
        if mask is not None and np.any(mask):
            axis.contour(np.asarray(mask) != 0, levels=[0.5], colors="tab:orange", linewidths=1.2)
        if np.nanmin(heatmap) < self.threshold < np.nanmax(heatmap):
            axis.contour(heatmap, levels=[self.threshold], colors="lime", linewidths=1.8)
