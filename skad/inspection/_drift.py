"""Scores of images over time, and the evidence that they have drifted."""

from __future__ import annotations

from typing import Any

import numpy as np

from skad._common.text import readable
from skad.inspection._drawing import DEFECTIVE, GOOD, UNLABELLED, Drawn, new_figure
from skad.metrics import DriftMonitor
from skad.model_selection._unwrap import unwrap_estimator

_COUNTS = ("good", "all")
# Powers of ten: where the picture ends. An axis overflows long before floats do.
_HIGHEST = 100.0


class DriftDisplay(Drawn):
    """Scores of images over time, above the evidence that they no longer look like the training images.

    The upper axis shows anomaly scores as the papers do, minus ``score_samples``. The lower one shows
    the evidence, on a logarithmic axis, with the line at which it raises an alarm; see
    :class:`skad.metrics.DriftMonitor`. Use :meth:`from_monitor`, :meth:`from_estimator` or
    :meth:`from_predictions` to create one.

    Parameters
    ----------
    monitor : skad.metrics.DriftMonitor
        It has seen at least one image. Later updates do not change the display.
    threshold : float or None, default=None
        On the scale of the scores, such as ``offset_``: a line; images below it are called defective.
        None: that of the monitor, if it has one.
    name : str or None, default=None
        Beginning of the title.

    Raises
    ------
    ValueError
        If the monitor has seen no image.

    Attributes
    ----------
    monitor : skad.metrics.DriftMonitor
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes, of shape (2,)
        Of the scores and of the evidence.
    evidence_line_, alarm_line_ : matplotlib Line2D
    threshold_line_ : matplotlib Line2D or None

    Examples
    --------
    >>> import numpy as np
    >>> from skad.inspection import DriftDisplay
    >>> rng = np.random.default_rng(0)
    >>> scores = np.concatenate([rng.normal(size=100), rng.normal(size=50) - 2])
    >>> display = DriftDisplay.from_predictions(rng.normal(size=100), scores)
    >>> display.monitor.alarm_at_
    108
    """

    def __init__(
        self, monitor: DriftMonitor, threshold: float | None = None, name: str | None = None
    ) -> None:
        if not monitor.n_images_:
            raise ValueError("the monitor has seen no image: call update(scores) first.")
        self.monitor = monitor
        self.threshold = monitor.threshold if threshold is None else threshold
        self.name = name
        self._scores, self._evidence = monitor.scores_, monitor.log10_evidence_
        self._first = monitor.n_images_ - len(self._scores)
        self._alarm_at = monitor.alarm_at_

    @classmethod
    def from_monitor(
        cls,
        monitor: DriftMonitor,
        *,
        threshold: float | None = None,
        name: str | None = None,
        axes: Any = None,
    ) -> DriftDisplay:
        """Draw what a monitor has seen: its latest images, up to its ``memory``.

        Parameters
        ----------
        monitor : skad.metrics.DriftMonitor
        threshold : float, default=None
            A line at this score; None: at the threshold of the monitor, if it has one.
        name : str, default=None
            Beginning of the title.
        axes : sequence of two matplotlib Axes, default=None
            For the scores and for the evidence; None: a new figure.

        Returns
        -------
        DriftDisplay

        Raises
        ------
        ValueError
            If the monitor has seen no image.
        """
        return cls(monitor, threshold, name).plot(axes)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        count: str = "good",
        level: float = 0.05,
        random_state: int = 0,
        name: str | None = None,
        axes: Any = None,
    ) -> DriftDisplay:
        """Score images, compare them with the calibration scores, and draw both.

        Parameters
        ----------
        estimator : fitted detector, or Pipeline that ends with one
        X : images
            In the order in which they were taken, in any form that the detector takes. Not the
            training images, whose scores are too good.
        count : {"good", "all"}, default="good"
            Which images are compared with the calibration scores: those that the detector calls good,
            or all of them, defects included.
        level : float, default=0.05
            Maximum probability of a false alarm.
        random_state : int, default=0
            Seed of what breaks ties.
        name : str, default=None
            Beginning of the title; None: the class of the detector.
        axes : sequence of two matplotlib Axes, default=None
            For the scores and for the evidence; None: a new figure.

        Returns
        -------
        DriftDisplay
            Its ``monitor`` can go on with ``update``.

        Raises
        ------
        NotFittedError, TypeError
            If the estimator is not fitted, or is not a detector.
        ValueError
            If `count` is another value, or if the detector has no calibration scores.
        """
        unwrapped = unwrap_estimator(estimator, "score_samples")
        detector = unwrapped.detector
        monitor = watch(detector, count, level=level, random_state=random_state)
        monitor.update(detector.score_samples(unwrapped.images(X)))
        name = type(detector).__name__ if name is None else name
        return cls(monitor, detector.offset_, name).plot(axes)

    @classmethod
    def from_predictions(
        cls,
        calibration_scores: Any,
        scores: Any,
        *,
        threshold: float | None = None,
        level: float = 0.05,
        random_state: int = 0,
        name: str | None = None,
        axes: Any = None,
    ) -> DriftDisplay:
        """Compare scores that were computed before, and draw them.

        Parameters
        ----------
        calibration_scores : array-like of shape (n_calibration,)
            Such as ``calibration_scores_``.
        scores : array-like of shape (n,)
            ``score_samples`` of images, in the order in which they were taken.
        threshold, level, random_state
            As for :class:`skad.metrics.DriftMonitor`.
        name, axes
            As for :meth:`from_monitor`.

        Returns
        -------
        DriftDisplay

        Raises
        ------
        ValueError
            As :class:`skad.metrics.DriftMonitor`.
        """
        monitor = DriftMonitor(
            calibration_scores, threshold=threshold, level=level, random_state=random_state
        )
        return cls(monitor.update(scores), name=name).plot(axes)

    def plot(self, axes: Any = None) -> DriftDisplay:
        """Draw scores and evidence.

        Parameters
        ----------
        axes : sequence of two matplotlib Axes, default=None
            For the scores and for the evidence; None: a new figure.

        Returns
        -------
        DriftDisplay
        """
        self._owns_figure = axes is None
        if axes is None:
            axes = new_figure(8.0, 4.2).subplots(2, 1, sharex=True, height_ratios=(3, 2))
        upper, lower = self.axes_ = np.asarray(axes)
        self.figure_ = upper.figure
        x = self._first + np.arange(len(self._scores))
        self._plot_scores(upper, x)
        self._plot_evidence(lower, x)
        if self._alarm_at is not None and self._alarm_at >= self._first:
            for ax in self.axes_:
                ax.axvline(self._alarm_at, color="black", linestyle=":", linewidth=1)
        state = "no alarm" if self._alarm_at is None else f"alarm at image {self._alarm_at}"
        upper.set_title(readable(", ".join(part for part in (self.name, state) if part)))
        return self

    def _plot_scores(self, ax: Any, x: np.ndarray) -> None:
        size = 12 if len(x) <= 300 else 4
        for label, colour, members in self._groups():
            if members.any():
                text = f"{label} ({members.sum()})"
                ax.scatter(x[members], -self._scores[members], s=size, color=colour, label=text)
        self.threshold_line_ = None
        if self.threshold is not None:
            self.threshold_line_ = ax.axhline(
                -self.threshold,
                color="black",
                linestyle="--",
                label=f"threshold {-self.threshold:.3g}",
            )
        ax.set_ylabel("anomaly score")
        _legend(ax)

    def _groups(self) -> list[tuple[str, str, np.ndarray]]:
        if self.threshold is None:
            return [("images", UNLABELLED, np.ones(len(self._scores), bool))]
        good = self._scores >= self.threshold
        return [("called good", GOOD, good), ("called defective", DEFECTIVE, ~good)]

    def _plot_evidence(self, ax: Any, x: np.ndarray) -> None:
        evidence = 10.0 ** np.clip(self._evidence, -_HIGHEST, _HIGHEST)
        (self.evidence_line_,) = ax.plot(x, evidence, color="black", label="evidence")
        level = self.monitor.level
        self.alarm_line_ = ax.axhline(
            1 / level, color=DEFECTIVE, linestyle="--", label=f"alarm at {1 / level:.3g}"
        )
        ax.set(xlabel="image", ylabel="evidence of drift", yscale="log")
        ax.xaxis.get_major_locator().set_params(integer=True)
        _legend(ax)


def _legend(ax: Any) -> None:
    """Beside the axes: points lie everywhere in them."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def watch(detector: Any, count: str, *, level: float = 0.05, random_state: int = 0) -> DriftMonitor:
    """Make a monitor from the calibration scores of a detector.

    Parameters
    ----------
    detector : fitted detector
    count : {"good", "all"}
        Which images count: those that the detector calls good, or all of them.
    level, random_state
        As for :class:`skad.metrics.DriftMonitor`.

    Returns
    -------
    DriftMonitor

    Raises
    ------
    ValueError
        If `count` is another value, or if the detector has no calibration scores.
    """
    if count not in _COUNTS:
        raise ValueError(f"count={count!r} must be one of {_COUNTS}.")
    if getattr(detector, "calibration_scores_", None) is None:
        raise ValueError(
            "drift is told by comparison with scores of good images that were held out, and this "
            "detector has none (fitted on one image, or with validation_fraction=0). Score good "
            "images that it has not seen, and pass the scores to skad.metrics.DriftMonitor."
        )
    return DriftMonitor(
        detector.calibration_scores_,
        threshold=detector.offset_ if count == "good" else None,
        level=level,
        random_state=random_state,
    )
