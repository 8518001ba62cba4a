"""ROC and precision-recall curves of pixels, drawn by scikit-learn's own displays."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

from skad._common.numbers import refuse_masked
from skad._common.text import readable
from skad._sklearn_compat import _num_samples
from skad.inspection._checks import check_heatmap, check_number
from skad.inspection._drawing import Drawn, check_matplotlib
from skad.metrics import PixelCounts
from skad.model_selection._scorers import as_mask, list_masks
from skad.model_selection._unwrap import Unwrapped, unwrap_estimator

Display = TypeVar("Display", bound="_PixelCurveDisplay")

# Dots along an axis: points of a curve that round to the same dot look the same.
_STEPS = 2000


class _PixelCurveDisplay(Drawn):
    """What both curves have in common: where masks and heat maps come from."""

    name: str | None

    @classmethod
    def from_estimator(
        cls: type[Display],
        estimator: Any,
        X: Any,
        masks: Sequence[Any],
        *,
        name: str | None = None,
        ax: Any = None,
    ) -> Display:
        """Make heat maps, compare them with masks, and draw the curve.

        A few heat maps are in memory at a time, whatever the number of images.

        Parameters
        ----------
        estimator : fitted detector, or Pipeline that ends with one
        X : images
            n images, in any form that the detector takes.
        masks : sequence of n arrays of shape (H_i, W_i), paths or None
            Non-zero = defective; None: nothing is (a good image).
        name : str, default=None
            For the legend; None: the class of the detector.
        ax : matplotlib Axes, default=None
            None: a new figure. Several curves on the same axes can be compared.

        Returns
        -------
        display
            Of the class that it is called on.

        Raises
        ------
        NotFittedError, TypeError
            If the estimator is not fitted, or has no heat maps.
        ValueError
            If masks do not match the images, or mark no pixel, or all of them.
        """
        check_matplotlib()
        unwrapped = unwrap_estimator(estimator)
        n = _num_samples(X)
        masks = list_masks(masks)
        check_number("masks", masks, n)
        counts = count_pixels(masks, _iter_heatmaps(unwrapped, X, n))
        return cls._draw(counts, type(unwrapped.detector).__name__ if name is None else name, ax)

    @classmethod
    def from_predictions(
        cls: type[Display],
        masks: Iterable[Any],
        heatmaps: Iterable[np.ndarray],
        *,
        name: str | None = None,
        ax: Any = None,
    ) -> Display:
        """Compare masks with heat maps that have been made, and draw the curve.

        Parameters
        ----------
        masks : iterable of n arrays of shape (H_i, W_i), paths or None
            Non-zero = defective; None: nothing is (a good image).
        heatmaps : iterable of n arrays of shape (H_i, W_i)
            Higher = more anomalous; pixels that are NaN are left out. May be a generator: heat
            maps are counted one after the other.
        name : str, default=None
            For the legend.
        ax : matplotlib Axes, default=None
            None: a new figure.

        Returns
        -------
        display
            Of the class that it is called on.

        Raises
        ------
        ValueError
            If masks do not match the heat maps, or mark no pixel, or all of them.
        """
        check_matplotlib()
        return cls._draw(count_pixels(masks, heatmaps), name, ax)

    @classmethod
    def _draw(cls: type[Display], counts: PixelCounts, name: str | None, ax: Any) -> Display:
        if not counts.n_good or not counts.n_defective:
            which = "all pixels" if counts.n_defective else "no pixel"
            raise ValueError(
                f"the masks mark {which} as defective (pixels that are NaN left out): a curve needs "
                "good and defective pixels."
            )
        return cls._from_counts(counts, name).plot(ax)

    @classmethod
    @abstractmethod
    def _from_counts(cls: type[Display], counts: PixelCounts, name: str | None) -> Display:
        """Compute the curve."""

    @abstractmethod
    def plot(self: Display, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> Display:
        """Draw the curve."""

    def _delegate(self, display: Any, ax: Any, name: str | None, **kwargs: Any) -> None:
        """Let scikit-learn's display draw, and take over what it has drawn."""
        name = self.name if name is None else name
        # Always on given axes: on its own it would open a window of pyplot's.
        display.plot(
            self._axes(ax, 4.6, 4.4),
            name=None if name is None else readable(name),
            **{"plot_chance_level": True, **kwargs},
        )
        self.ax_, self.line_ = display.ax_, display.line_
        self.chance_level_ = display.chance_level_


class PixelRocDisplay(_PixelCurveDisplay):
    """ROC curve of pixels: defective pixels found against good pixels called defective.

    Use :meth:`from_estimator` or :meth:`from_predictions` to create one.

    Parameters
    ----------
    fpr, tpr : ndarray of shape (n_points,)
        Fractions of good and of defective pixels called defective, rising.
    roc_auc : float
        Area under the curve.
    name : str or None, default=None
        For the legend.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    line_ : matplotlib Line2D
        The curve.
    chance_level_ : matplotlib Line2D or None

    See Also
    --------
    sklearn.metrics.RocCurveDisplay : Draws the curve.
    skad.metrics.PixelCounts : Counts the pixels, and says how far the area can be off.
    skad.metrics.pixel_auroc : The exact area, with all heat maps in memory.

    Notes
    -----
    Pixels are counted by their anomaly in bins 0.05 % wide, image by image: 24 MB of memory for any
    number of images, and an area that is right to about four digits.

    Examples
    --------
    >>> import numpy as np
    >>> from skad.inspection import PixelRocDisplay
    >>> masks, heatmaps = [np.array([[0, 1], [0, 1]])], [np.array([[0.1, 0.9], [0.4, 0.3]])]
    >>> PixelRocDisplay.from_predictions(masks, heatmaps).roc_auc
    0.75
    """

    def __init__(
        self, *, fpr: np.ndarray, tpr: np.ndarray, roc_auc: float, name: str | None = None
    ) -> None:
        self.fpr = fpr
        self.tpr = tpr
        self.roc_auc = roc_auc
        self.name = name

    @classmethod
    def _from_counts(cls, counts: PixelCounts, name: str | None) -> PixelRocDisplay:
        curves = counts.curves()
        fpr, tpr = curves.false_positive_rate, curves.recall
        shown = thin(fpr, tpr)
        return cls(fpr=fpr[shown], tpr=tpr[shown], roc_auc=counts.auroc(), name=name)

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> PixelRocDisplay:
        """Draw the curve and the level of chance.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None: a new figure.
        name : str, default=None
            For the legend, instead of the one given before.
        **kwargs : dict
            For :meth:`sklearn.metrics.RocCurveDisplay.plot`, such as ``plot_chance_level=False``.

        Returns
        -------
        PixelRocDisplay
        """
        display = RocCurveDisplay(fpr=self.fpr, tpr=self.tpr, roc_auc=self.roc_auc)
        self._delegate(display, ax, name, **kwargs)
        self.ax_.set(
            xlabel="good pixels called defective", ylabel="defective pixels called defective"
        )
        return self


class PixelPrecisionRecallDisplay(_PixelCurveDisplay):
    """Precision-recall curve of pixels; says more than ROC where few pixels are defective.

    Use :meth:`from_estimator` or :meth:`from_predictions` to create one.

    Parameters
    ----------
    precision : ndarray of shape (n_points,)
        Fraction of defective pixels among those called defective.
    recall : ndarray of shape (n_points,)
        Fraction of defective pixels called defective, falling.
    average_precision : float
        Precision at each recall that is reached, weighted by the increase of recall.
    prevalence : float
        Fraction of defective pixels: the precision of chance.
    name : str or None, default=None
        For the legend.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    line_ : matplotlib Line2D
        The curve.
    chance_level_ : matplotlib Line2D or None

    See Also
    --------
    sklearn.metrics.PrecisionRecallDisplay : Draws the curve.

    Notes
    -----
    Computed as for :class:`PixelRocDisplay`.

    Examples
    --------
    >>> import numpy as np
    >>> from skad.inspection import PixelPrecisionRecallDisplay
    >>> masks, heatmaps = [np.array([[0, 1], [0, 1]])], [np.array([[0.1, 0.9], [0.4, 0.3]])]
    >>> display = PixelPrecisionRecallDisplay.from_predictions(masks, heatmaps)
    >>> round(display.average_precision, 3), display.prevalence
    (0.833, 0.5)
    """

    def __init__(
        self,
        *,
        precision: np.ndarray,
        recall: np.ndarray,
        average_precision: float,
        prevalence: float,
        name: str | None = None,
    ) -> None:
        self.precision = precision
        self.recall = recall
        self.average_precision = average_precision
        self.prevalence = prevalence
        self.name = name

    @classmethod
    def _from_counts(cls, counts: PixelCounts, name: str | None) -> PixelPrecisionRecallDisplay:
        curves = counts.curves()
        shown = thin(curves.recall, curves.precision)[::-1]
        return cls(
            precision=curves.precision[shown],
            recall=curves.recall[shown],
            average_precision=counts.average_precision(),
            prevalence=counts.prevalence(),
            name=name,
        )

    def plot(
        self, ax: Any = None, *, name: str | None = None, **kwargs: Any
    ) -> PixelPrecisionRecallDisplay:
        """Draw the curve and the level of chance.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None: a new figure.
        name : str, default=None
            For the legend, instead of the one given before.
        **kwargs : dict
            For :meth:`sklearn.metrics.PrecisionRecallDisplay.plot`, such as
            ``plot_chance_level=False``.

        Returns
        -------
        PixelPrecisionRecallDisplay
        """
        display = PrecisionRecallDisplay(
            self.precision,
            self.recall,
            average_precision=self.average_precision,
            prevalence_pos_label=self.prevalence,
        )
        self._delegate(display, ax, name, **kwargs)
        self.ax_.set(xlabel="recall of defective pixels", ylabel="precision")
        # scikit-learn's corner lies on the level of chance where few pixels are defective.
        self.ax_.legend(loc="best")
        return self


def count_pixels(masks: Iterable[Any], heatmaps: Iterable[np.ndarray]) -> PixelCounts:
    """Count the pixels of masks, which may be files or missing, and heat maps; pair by pair.

    Parameters
    ----------
    masks : iterable of arrays, paths or None
    heatmaps : iterable of arrays

    Returns
    -------
    PixelCounts

    Raises
    ------
    ValueError
        If a mask and its heat map differ in shape, or their numbers differ.
    """
    counts = PixelCounts()
    for i, (given, heatmap) in enumerate(zip(masks, heatmaps, strict=True)):
        refuse_masked(heatmap, f"heat map {i}")
        heatmap = np.asarray(heatmap)
        mask = as_mask(given, heatmap.shape, f"mask {i}")
        check_heatmap(i, heatmap, mask)
        counts.update([mask], [heatmap])
    return counts


def _iter_heatmaps(unwrapped: Unwrapped, X: Any, n: int) -> Iterator[np.ndarray]:
    for _, portion in unwrapped.portions(X, n):
        yield from unwrapped.detector.predict_heatmap(portion)


def thin(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Choose the points of a curve that an eye can tell apart.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        In 0..1.

    Returns
    -------
    ndarray of int
        The first and last point, and those between that are drawn on another dot than the one before.
    """
    dots = np.round(np.stack([x, y]) * _STEPS)
    moved = np.any(np.diff(dots, axis=1) != 0, axis=0)
    return np.union1d(np.flatnonzero(moved) + 1, [0, len(x) - 1])
