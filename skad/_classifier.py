"""A detector among classifiers: verdicts by the probability of a defect.

Labels tell which images train the detector (the good ones alone) and, once it has learned, what its
scores are worth. Here y may be coded in any way; elsewhere in skad it is +1 and -1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags, assert_all_finite, check_array, column_or_1d, get_tags
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted

from skad._common.warn import warn_user
from skad._images import one_call, refuse_single
from skad._scoring.probabilities import MAPS, LabelledScores
from skad._sklearn_compat import StrOptions, _fit_context, _num_samples, _safe_indexing
from skad._verdicts import BaseDetector
from skad.metrics import image_auroc
from skad.model_selection._unwrap import unwrap


class _Labels(NamedTuple):
    """Two labels, and which images carry the one of defects."""

    classes: np.ndarray
    """(2,), sorted."""
    defective: np.ndarray
    """(n,) bool."""
    place: int
    """Where the label of defects stands among the classes: 0 or 1."""


class DefectClassifier(ClassifierMixin, BaseEstimator):
    """A detector as a classifier that tells the probability of a defect.

    The detector learns from good images alone. Labelled defective images never train it: they tell, with
    the good images' held-out scores, what probability a score stands for. So it is a classifier for
    ``VotingClassifier``, ``StackingClassifier``, ``CalibratedClassifierCV``,
    ``TunedThresholdClassifierCV`` and whatever else takes ``predict_proba``.

    Parameters
    ----------
    detector : detector or Pipeline
        A detector of skad's, or a Pipeline that ends with one; it is cloned. Its parameters are set by
        name: ``set_params(detector__n_neighbors=3)``.
    defect_label : int, str or bool
        The label of defective images in the y that ``fit`` gets; it must occur there, and there must be
        one other label, of good images. ``VotingClassifier`` and ``StackingClassifier`` hand on an
        encoded y, 0 and 1 by the sorted labels: inside of them it is 0 for labels -1 (defective) and 1,
        and for "defective" and "good"; it is 1 for labels 0 and 1 (defective), and for "good" and
        "scratched".
    method : {"sigmoid", "isotonic"}, default="sigmoid"
        How a score becomes a probability. "sigmoid": by a logistic map, which needs few labelled defects
        and keeps the order of the scores. "isotonic": by any map that rises with the anomaly; for
        a hundred labelled defects and more. It makes ties, which cost some AUROC.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The labels, sorted.
    detector_ : detector or Pipeline
        Fitted on the good images. Its own threshold, p-values, maps and regions remain available.
    probability_map_ : object
        The fitted map: its method ``log_odds`` takes anomaly scores, minus ``score_samples``.
    n_features_in_, feature_names_in_
        Those of the detector; only if X held rows.

    See Also
    --------
    skad.model_selection.unwrap : Finds the detector for heat maps and regions.
    sklearn.calibration.CalibratedClassifierCV : Calibrates on images left out of whole fits.

    Notes
    -----
    **What is held out.** No defective image is ever learned from, so defects score as new ones do. Good
    images are learned from; in place of their scores stand the detector's ``calibration_scores_``. Each
    comes from a model that has not seen its image: from a memory bank of other folds, as large as the
    final one, or from a network that held the image out. No second fit is needed, and no good image is
    lost to the training. Two things are not held out: the steps of a Pipeline before the detector, which
    learn from all good images, and the map itself, for "sigmoid" two numbers. In a
    ``CalibratedClassifierCV`` both are, for some more fits.

    **Verdicts.** ``predict`` returns the label of the higher probability, not the verdict of the
    detector's threshold: else a meta-estimator that votes by probabilities, or moves a threshold on
    them, would disagree with the classifier in it. The detector's threshold keeps a false-alarm rate and
    needs no defects; ``detector_.predict`` asks it.

    **How often defects occur.** The probabilities hold where defects are as frequent as in y. On a line
    they mostly are far rarer, and a y that is half defective calls too many parts defective. Choose a
    threshold by recall or costs (``TunedThresholdClassifierCV``), or keep to the detector's.

    References
    ----------
    J. Platt, "Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized
    Likelihood Methods", 1999; B. Zadrozny and C. Elkan, "Transforming Classifier Scores into Accurate
    Multiclass Probability Estimates", KDD 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from skad import DefectClassifier, PatchCoreDetector
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(90, 110, size=(16, 64, 64, 3), dtype=np.uint8)
    >>> X[12:, 8:30, 8:30] = 255
    >>> y = np.repeat(["good", "scratched"], [12, 4])
    >>> det = PatchCoreDetector(
    ...     "skad_nano", image_size=64, target_false_alarm_rate=0.2, random_state=0
    ... )
    >>> clf = DefectClassifier(det, defect_label="scratched").fit(X, y)
    >>> print(*clf.predict(X[[0, 15]]))
    good scratched
    >>> clf.predict_proba(X[[0, 15]]).shape
    (2, 2)
    """

    _doc_link_module = "skad"
    _doc_link_template = "https://scikit-learn.org/stable/modules/calibration.html"

    _parameter_constraints: dict = {
        "detector": [BaseDetector, Pipeline],
        "defect_label": "no_validation",
        "method": [StrOptions(set(MAPS))],
    }

    def __init__(self, detector, *, defect_label, method="sigmoid"):
        self.detector = detector
        self.defect_label = defect_label
        self.method = method

    # ---------------------------------------------------------------- fitting

    @_fit_context(prefer_skip_nested_validation=False)
    @one_call()
    def fit(self, X: Any, y: Any) -> DefectClassifier:
        """Fit the detector on the good images, and the probability of a defect on all.

        Parameters
        ----------
        X : images
            As the detector takes them; n images, in a list, an array or a column of a table.
        y : array-like of shape (n,)
            Two labels, one of them `defect_label`.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            If `defect_label` does not occur in y, or no other label does, or several; if the detector
            holds no good image out.
        TypeError
            If a Pipeline does not end with a detector of skad's.

        Warns
        -----
        UserWarning
            If the defective images score no more anomalous than the good ones: all images get one
            probability then.
        """
        for name in ("classes_", "detector_", "probability_map_"):
            self.__dict__.pop(name, None)  # what fails leaves nothing fitted
        self._check_detector()
        X = _indexable(X)
        labels = self._read(y, _num_samples(X))
        detector = clone(self.detector).fit(_safe_indexing(X, np.flatnonzero(~labels.defective)))
        good = unwrap(detector).detector.calibration_scores_
        if good is None:
            raise ValueError(
                "the detector has no held-out scores of good images (calibration_scores_ is None), and "
                "those of images that it has learned from say nothing of new ones: give it two good "
                "images or more, and a validation_fraction above 0 if it has one."
            )
        defective = detector.score_samples(_safe_indexing(X, np.flatnonzero(labels.defective)))
        scores = LabelledScores.of(-good, -defective, int((~labels.defective).sum()))
        probability_map = MAPS[self.method](scores)
        if probability_map.is_flat:
            _warn_of_flat_map(good, defective, probability_map.log_odds(scores.anomalies))
        self._defect_place = labels.place
        self.classes_, self.detector_ = labels.classes, detector
        self.probability_map_ = probability_map
        return self

    def _check_detector(self) -> None:
        last = self.detector
        while isinstance(last, Pipeline):
            last = last.steps[-1][1]
        if not isinstance(last, BaseDetector):
            raise TypeError(
                f"detector ends with a {type(last).__name__}; it must end with a detector of skad's, "
                "which measures held-out scores of its good images (calibration_scores_)."
            )

    def _read(self, y: Any, n: int) -> _Labels:
        """Read labels in whatever coding, and find the one of defects by value."""
        if y is None:
            raise ValueError(
                "DefectClassifier requires y to be passed, but the target y is None: it needs labelled "
                "defects. Without, use the detector itself."
            )
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        if len(y) != n:
            raise ValueError(f"y has {len(y)} labels for {n} images: one label per image.")
        classes, places = np.unique(y, return_inverse=True)
        values = classes.tolist()
        if len(classes) > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{type_of_target(y)}: y holds the labels {_some(values)}. Give all defects one label."
            )
        if self.defect_label not in values:
            raise ValueError(
                f"defect_label={self.defect_label!r} is no class of y, which holds {_some(values)}. "
                "VotingClassifier and StackingClassifier encode y: in them it is the label's place "
                "among the sorted ones, 0 or 1. Without labelled defects there is no probability: use "
                "the detector itself."
            )
        if len(classes) < 2:
            raise ValueError(
                f"y holds one class, {_some(values)}, that of defects: good images are needed as well, "
                "since the detector learns from nothing else."
            )
        place = values.index(self.defect_label)
        return _Labels(classes, places == place, place)

    # ---------------------------------------------------------------- predictions

    def decision_function(self, X: Any) -> np.ndarray:
        """Tell the log-odds of ``classes_[1]``.

        As everywhere in scikit-learn, higher = more probably ``classes_[1]``: higher = more defective if
        that is `defect_label` (labels 0 and 1 = defective), more normal if it is not (-1 = defective and
        1). Scorers and displays with a ``pos_label`` know both.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; n images.

        Returns
        -------
        ndarray of shape (n,), float64
        """
        check_is_fitted(self)
        log_odds = self.probability_map_.log_odds(-self.detector_.score_samples(X))
        return log_odds if self._defect_place == 1 else -log_odds

    def predict_proba(self, X: Any) -> np.ndarray:
        """Tell the probability of either label.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; n images.

        Returns
        -------
        ndarray of shape (n, 2), float64
            In the order of ``classes_``. They hold where defects are as frequent as in the training.
        """
        log_odds = self.decision_function(X)
        return np.column_stack([expit(-log_odds), expit(log_odds)])

    def predict(self, X: Any) -> np.ndarray:
        """Tell the more probable label.

        Parameters
        ----------
        X : images
            As in :meth:`fit`; n images.

        Returns
        -------
        ndarray of shape (n,)
            Values of ``classes_``; see Notes for the detector's own threshold.
        """
        is_second = self.decision_function(X) > 0
        return self.classes_[is_second.astype(int)]

    @property
    def n_features_in_(self) -> int:
        """Number of columns; only if X held rows."""
        return self._of_detector("n_features_in_")

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns; only if X was a table of rows."""
        return self._of_detector("feature_names_in_")

    def _of_detector(self, name: str) -> Any:
        # scikit-learn asks by hasattr: an AttributeError says no, before the fit as well.
        if "detector_" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.detector_, name)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags = get_tags(self.detector).input_tags
        return tags


def _indexable(X: Any) -> Any:
    """Return X in a form from which images can be chosen; a sparse matrix is refused."""
    refuse_single(X)
    if issparse(X) or not hasattr(X, "__getitem__"):
        return check_array(X, dtype=None, allow_nd=True)
    return X


def _some(values: list[Any]) -> str:
    """Quote up to five labels."""
    shown = ", ".join(map(repr, values[:5]))
    return f"[{shown}]" if len(values) <= 5 else f"[{shown}] and {len(values) - 5} others"


def _warn_of_flat_map(good: np.ndarray, defective: np.ndarray, log_odds: np.ndarray) -> None:
    labels = np.repeat([1, -1], [len(good), len(defective)])
    auroc = image_auroc(labels, np.concatenate([good, defective]))
    warn_user(
        "defective images score no more anomalous than good ones that were held out (image AUROC "
        f"{auroc:.2f}): every image gets the probability {expit(log_odds[0]):.2f} of a defect. Check "
        "defect_label, and whether the detector sees these defects (image_size, layers, tiles)."
    )
