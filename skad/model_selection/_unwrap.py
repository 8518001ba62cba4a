"""The fitted detector inside what the user holds, and the steps that lead to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skad._sklearn_compat import _safe_indexing

# Images whose heat maps are in memory together, where all of a long list are looked at.
_PORTION = 16


class Unwrapped(NamedTuple):
    """A detector, and the steps that images pass before they reach it."""

    detector: Any
    steps: tuple[Any, ...] = ()

    def images(self, X: Any) -> Any:
        """Return X as the detector sees it."""
        for step in self.steps:
            X = step.transform(X)
        return X

    def portions(self, X: Any, n: int) -> Iterator[tuple[slice, Any]]:
        """Yield places in X, and X there as the detector sees it, a few images at a time."""
        for start in range(0, n, _PORTION):
            rows = slice(start, min(start + _PORTION, n))
            yield rows, self.images(_safe_indexing(X, rows))


def unwrap_estimator(estimator: Any, needs: str = "predict_heatmap") -> Unwrapped:
    """Find the detector in a Pipeline or a search.

    Parameters
    ----------
    estimator : detector, Pipeline or search
        Fitted. A Pipeline ends with a detector; of a search its ``best_estimator_`` is taken.
    needs : str, default="predict_heatmap"
        A method that the detector must have.

    Returns
    -------
    Unwrapped

    Raises
    ------
    NotFittedError
    TypeError
        If the last step has no such method.
    """
    if isinstance(estimator, Pipeline):
        unwrapped = unwrap_estimator(estimator[-1], needs)
        before = estimator[:-1]
        return Unwrapped(
            unwrapped.detector, (before, *unwrapped.steps) if before.steps else unwrapped.steps
        )
    if hasattr(estimator, "best_estimator_"):
        return unwrap_estimator(estimator.best_estimator_, needs)
    if hasattr(estimator, needs):
        check_is_fitted(estimator)
        # Scores, maps and thresholds of one state, whatever other threads do meanwhile.
        as_fitted = getattr(estimator, "_as_fitted", None)
        return Unwrapped(estimator if as_fitted is None else as_fitted())
    if hasattr(estimator, "estimator"):
        check_is_fitted(estimator)
    raise TypeError(
        f"{type(estimator).__name__} has no method {needs!r}: pass a fitted detector of skad, or a "
        "Pipeline that ends with one."
    )
