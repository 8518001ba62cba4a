"""The fitted detector inside what the user holds, and the steps that lead to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skad._sklearn_compat import _safe_indexing

# Images whose heat maps are in memory together, where all of a long list are looked at.
_PORTION = 16
# Where meta-estimators keep what they have fitted: searches, DefectClassifier, classifiers that move a
# threshold. Of several fitted copies, as CalibratedClassifierCV has them, none is the detector.
_INNER = ("best_estimator_", "detector_", "estimator_")


class Unwrapped(NamedTuple):
    """A detector, and the steps that images pass before they reach it; see :func:`unwrap`."""

    detector: Any
    steps: tuple[Any, ...] = ()

    def images(self, X: Any) -> Any:
        """Return X as the detector sees it.

        Parameters
        ----------
        X : images

        Returns
        -------
        images
            After the transformers of the Pipeline.
        """
        for step in self.steps:
            X = step.transform(X)
        return X

    def portions(self, X: Any, n: int) -> Iterator[tuple[slice, Any]]:
        """Yield places in X, and X there as the detector sees it, a few images at a time."""
        for start in range(0, n, _PORTION):
            rows = slice(start, min(start + _PORTION, n))
            yield rows, self.images(_safe_indexing(X, rows))


def unwrap(estimator: Any, needs: str = "score_samples") -> Unwrapped:
    """Find the fitted detector in a Pipeline, a search or a classifier.

    scikit-learn's meta-estimators hand on ``predict`` and ``score_samples``, but know nothing of heat
    maps, regions, p-values and thresholds.

    Parameters
    ----------
    estimator : detector, Pipeline, search, :class:`skad.DefectClassifier` or what holds one
        Fitted. A Pipeline ends with a detector; of a search its ``best_estimator_`` is taken, of
        ``TunedThresholdClassifierCV`` and ``FixedThresholdClassifier`` their ``estimator_``.
    needs : str, default="score_samples"
        A method that the detector must have.

    Returns
    -------
    Unwrapped
        ``detector``, the fitted one itself: moving its threshold moves that of the whole; and
        ``images(X)``, X as that detector sees it.

    Raises
    ------
    NotFittedError
    TypeError
        If there is no such detector.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from skad import PatchCoreDetector
    >>> from skad.model_selection import unwrap
    >>> from skad.utils.estimator_checks import good_images
    >>> det = PatchCoreDetector("skad_nano", image_size=32, target_false_alarm_rate=0.2)
    >>> pipeline = make_pipeline(FunctionTransformer(lambda X: X[:, 4:]), det).fit(good_images(8))
    >>> found = unwrap(pipeline)
    >>> found.detector.predict_heatmap(found.images(good_images(2))).shape
    (2, 36, 48)
    """
    if isinstance(estimator, Pipeline):
        found = unwrap(estimator[-1], needs)
        before = estimator[:-1]
        return found._replace(steps=(before, *found.steps)) if before.steps else found
    for inner in _INNER:
        if hasattr(estimator, inner):
            return unwrap(getattr(estimator, inner), needs)
    if hasattr(estimator, needs):
        check_is_fitted(estimator)
        return Unwrapped(estimator)
    if hasattr(estimator, "estimator") or hasattr(estimator, "detector"):
        check_is_fitted(estimator)
    raise TypeError(
        f"{type(estimator).__name__} has no method {needs!r}: pass a fitted detector of skad, or a "
        "Pipeline that ends with one."
    )


def unwrap_estimator(estimator: Any, needs: str = "predict_heatmap") -> Unwrapped:
    """Find the detector as it is now: what one picture or one figure works with.

    Parameters
    ----------
    estimator, needs
        As for :func:`unwrap`.

    Returns
    -------
    Unwrapped
        Its detector is a snapshot: scores, maps and thresholds of one state, whatever other threads do.
    """
    found = unwrap(estimator, needs)
    as_fitted = getattr(found.detector, "_as_fitted", None)
    return found if as_fitted is None else found._replace(detector=as_fitted())
