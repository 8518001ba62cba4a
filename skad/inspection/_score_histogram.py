"""Histograms of image scores, good and defective."""

from __future__ import annotations

from typing import Any

import numpy as np

from skad._common.labels import read_labels
from skad._common.numbers import refuse_masked
from skad._common.text import readable
from skad.inspection._drawing import DEFECTIVE, GOOD, UNLABELLED, Drawn
from skad.metrics import discriminability
from skad.model_selection._unwrap import unwrap_estimator


class ScoreHistogramDisplay(Drawn):
    """Histograms of the scores of good and of defective images.

    The axis shows anomaly scores as the papers do, minus ``score_samples``: defects lie on the right.
    Use :meth:`from_estimator` or :meth:`from_predictions` to create one.

    Parameters
    ----------
    scores : array-like of shape (n,)
        ``score_samples``; higher = more normal.
    y : array-like of shape (n,) or None, default=None
        +1 good, -1 defective; None: one histogram of all images.
    threshold : float or None, default=None
        On the scale of `scores`, such as ``offset_``: images below it are called defective. None: no
        line.
    name : str or None, default=None
        Beginning of the title.

    Raises
    ------
    ValueError
        If the labels do not match the scores or are not +1 or -1, or if scores are not finite.

    Attributes
    ----------
    d_prime : float or None
        Discriminability d' of the scores, see :func:`skad.metrics.discriminability`; None unless there
        are both good and defective images.
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    threshold_line_ : matplotlib Line2D or None

    Examples
    --------
    >>> from skad.inspection import ScoreHistogramDisplay
    >>> display = ScoreHistogramDisplay.from_predictions(
    ...     [1, 1, -1, -1], [-1.0, -3.0, -6.0, -8.0], threshold=-4.0
    ... )
    >>> display.d_prime
    5.0
    """

    def __init__(
        self,
        scores: Any,
        y: Any = None,
        threshold: float | None = None,
        name: str | None = None,
    ) -> None:
        self.scores = _read_scores(scores)
        self.y = None if y is None else read_labels(y, len(self.scores))
        self.threshold = threshold
        self.name = name
        self.d_prime = None
        if self.y is not None and len(np.unique(self.y)) == 2:
            self.d_prime = discriminability(self.scores[self.y == 1], self.scores[self.y == -1])

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        name: str | None = None,
        bins: Any = 30,
        ax: Any = None,
    ) -> ScoreHistogramDisplay:
        """Score images and draw the histograms.

        Parameters
        ----------
        estimator : fitted detector, or Pipeline that ends with one
        X : images
            n of them, in any form that the detector takes.
        y : array-like of shape (n,), default=None
            +1 good, -1 defective.
        name : str, default=None
            Beginning of the title; None: the class of the detector.
        bins : int, str or sequence of float, default=30
            As in :func:`numpy.histogram_bin_edges`, over the anomaly scores of all images.
        ax : matplotlib Axes, default=None
            None: a new figure.

        Returns
        -------
        ScoreHistogramDisplay

        Raises
        ------
        NotFittedError, TypeError
            If the estimator is not fitted, or is not a detector.
        ValueError
            If the labels do not match the images or are not +1 or -1.
        """
        unwrapped = unwrap_estimator(estimator, "score_samples")
        scores = unwrapped.detector.score_samples(unwrapped.images(X))
        return cls.from_predictions(
            y,
            scores,
            threshold=unwrapped.detector.offset_,
            name=type(unwrapped.detector).__name__ if name is None else name,
            bins=bins,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        y: Any,
        scores: Any,
        *,
        threshold: float | None = None,
        name: str | None = None,
        bins: Any = 30,
        ax: Any = None,
    ) -> ScoreHistogramDisplay:
        """Draw scores that were computed before.

        Parameters
        ----------
        y : array-like of shape (n,) or None
            +1 good, -1 defective; None: no labels.
        scores : array-like of shape (n,)
            ``score_samples`` with ``offset_`` as threshold, or ``decision_function`` with 0.
        threshold : float, default=None
        name : str, default=None
        bins, ax
            As for :meth:`from_estimator`.

        Returns
        -------
        ScoreHistogramDisplay

        Raises
        ------
        ValueError
            If the labels do not match the scores or are not +1 or -1, or if scores are not finite.
        """
        return cls(scores, y, threshold, name).plot(ax, bins=bins)

    def plot(self, ax: Any = None, *, bins: Any = 30) -> ScoreHistogramDisplay:
        """Draw the histograms, with common bins.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None: a new figure.
        bins : int, str or sequence of float, default=30
            As in :func:`numpy.histogram_bin_edges`.

        Returns
        -------
        ScoreHistogramDisplay
        """
        self.ax_ = self._axes(ax, 6.0, 3.4)
        anomaly = -self.scores
        edges = np.histogram_bin_edges(anomaly, bins)
        for label, colour, members in self._groups():
            self.ax_.hist(
                anomaly[members],
                edges,
                histtype="stepfilled",
                color=colour,
                alpha=0.45,
                edgecolor="none",
            )
            # The outline stays readable where two histograms overlap.
            self.ax_.hist(
                anomaly[members], edges, histtype="step", color=colour, linewidth=1.6, label=label
            )
        self.threshold_line_ = None
        if self.threshold is not None:
            self.threshold_line_ = self.ax_.axvline(
                -self.threshold,
                color="black",
                linestyle="--",
                label=f"threshold {-self.threshold:.3g}",
            )
        self.ax_.set(xlabel="anomaly score (minus score_samples)", ylabel="images")
        self.ax_.yaxis.get_major_locator().set_params(integer=True)
        parts = [self.name, None if self.d_prime is None else f"d' = {self.d_prime:.2f}"]
        self.ax_.set_title(readable(", ".join(part for part in parts if part)))
        self.ax_.legend()
        return self

    def _groups(self) -> list[tuple[str, str, np.ndarray]]:
        """Label, colour and images of each histogram; empty ones are left out."""
        if self.y is None:
            return [(f"images ({len(self.scores)})", UNLABELLED, np.ones(len(self.scores), bool))]
        groups = [("good", GOOD, self.y == 1), ("defective", DEFECTIVE, self.y == -1)]
        return [
            (f"{name} ({members.sum()})", colour, members)
            for name, colour, members in groups
            if members.any()
        ]


def _read_scores(scores: Any) -> np.ndarray:
    refuse_masked(scores, "scores")
    values = np.asarray(scores, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(
            f"scores must be a list of finite numbers, one per image; got shape {values.shape}"
            + ("." if np.isfinite(values).all() else " with NaN or infinite values.")
        )
    return values
