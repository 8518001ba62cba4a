"""Histograms of scores: what is counted, where the threshold lies."""

import numpy as np
import pytest
from conftest import make_detector
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skad.metrics import discriminability
from skad.model_selection import OneClassKFold, image_auroc_scorer

pytest.importorskip("matplotlib")
from skad.inspection import ScoreHistogramDisplay


def labels(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_from_estimator(good, defective):
    det = make_detector().fit(good)
    X, y = np.concatenate([good, defective]), np.repeat([1, -1], [len(good), len(defective)])
    display = ScoreHistogramDisplay.from_estimator(det, X, y)
    scores = det.score_samples(X)
    np.testing.assert_array_equal(display.scores, scores)
    assert display.d_prime == discriminability(scores[y == 1], scores[y == -1])
    assert display.ax_.get_title() == f"PatchCoreDetector, d' = {display.d_prime:.2f}"
    # Anomaly scores: defects on the right of the threshold, good images on its left.
    assert display.threshold_line_.get_xdata()[0] == -det.offset_
    assert labels(display)[:2] == ["good (12)", "defective (4)"]


def test_the_histograms_share_their_bins(good):
    y, scores = [1, 1, 1, -1], [-1.0, -1.1, -2.0, -5.0]
    display = ScoreHistogramDisplay.from_predictions(y, scores, bins=4)
    left, right = (patch.get_xy()[:, 0] for patch in display.ax_.patches[1::2])
    assert left.min() == right.min() == 1.0
    assert left.max() == right.max() == 5.0
    assert display.ax_.patches[1].get_xy()[:, 1].max() == 2  # the two around 1
    assert display.threshold_line_ is None


def test_without_labels():
    display = ScoreHistogramDisplay.from_predictions(
        None, [-1.0, -2.0], threshold=-1.5, name="line 3"
    )
    assert display.d_prime is None
    assert display.ax_.get_title() == "line 3"
    assert labels(display) == ["images (2)", "threshold 1.5"]


def test_of_one_kind_only():
    display = ScoreHistogramDisplay.from_predictions([1, 1], [-1.0, -2.0])
    assert display.d_prime is None
    assert labels(display) == ["good (2)"]


def test_on_axes_of_the_users():
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, 2)
    display = ScoreHistogramDisplay.from_predictions([1, -1], [-1.0, -2.0], ax=axes[1])
    assert display.ax_ is axes[1]
    assert display.figure_ is axes[0].figure
    assert not axes[0].patches
    assert display._repr_html_() is None  # it is shown with the user's figure
    assert display.plot()._repr_html_().startswith('<img alt="ScoreHistogramDisplay" src="data:')


def test_through_a_pipeline_and_a_search(good, defective):
    X, y = np.concatenate([good, defective]), np.repeat([1, -1], [len(good), len(defective)])
    pipeline = make_pipeline(FunctionTransformer(lambda X: X[:, 2:-2]), make_detector())
    search = GridSearchCV(
        pipeline, {"patchcoredetector__n_neighbors": [1, 2]}, scoring=image_auroc_scorer,
        cv=OneClassKFold(2),
    )  # fmt: skip
    with pytest.raises(NotFittedError):
        ScoreHistogramDisplay.from_estimator(search, X, y)
    search.fit(X, y)
    display = ScoreHistogramDisplay.from_estimator(search, X, y)
    np.testing.assert_array_equal(display.scores, search.best_estimator_.score_samples(X))
    assert display.name == "PatchCoreDetector"


@pytest.mark.parametrize(
    ("y", "scores", "message"),
    [
        ([0, 1], [1.0, 2.0], r"y holds \[0, 1\]: labels must be \+1"),
        ([True, True], [1.0, 2.0], "labels must be"),
        ([1], [1.0, 2.0], "y has 1 labels for 2 images"),
        (None, [1.0, np.nan], "NaN or infinite"),
        (None, [], "finite numbers, one per image"),
    ],
)
def test_what_cannot_be_drawn(y, scores, message):
    with pytest.raises(ValueError, match=message):
        ScoreHistogramDisplay.from_predictions(y, scores)


def test_estimators_that_are_no_detectors(good):
    with pytest.raises(NotFittedError):
        ScoreHistogramDisplay.from_estimator(make_detector(), good)
    with pytest.raises(TypeError, match="FunctionTransformer has no method 'score_samples'"):
        ScoreHistogramDisplay.from_estimator(FunctionTransformer(), good)


# --------------------------------------------------------------------------- made directly


@pytest.mark.parametrize("y", [[1, -1, 1], np.array([1.0, -1.0, 1.0]), [[1], [-1], [1]]])
def test_the_class_reads_labels_as_its_makers_do(y):
    display = ScoreHistogramDisplay([-1.0, -6.0, -3.0], y).plot()
    assert labels(display) == ["good (2)", "defective (1)"]
    assert display.d_prime == discriminability([-1.0, -3.0], [-6.0])


@pytest.mark.parametrize(
    ("scores", "y", "message"),
    [
        ([-1.0, -6.0], [0, 1], "y holds"),
        ([-1.0, -6.0], [False, True], "labels must be"),
        ([-1.0, -6.0], np.array(["good", "bad"]), "labels must be"),
        ([-1.0, -6.0], [1, -1, 1], "y has 3 labels for 2 images"),
        ([-1.0, np.inf], None, "NaN or infinite"),
        (np.ma.array([-1.0, -6.0], mask=[0, 1]), None, r"a\.filled"),
    ],
)
def test_the_class_refuses_what_its_makers_refuse(scores, y, message):
    with pytest.raises(ValueError, match=message):
        ScoreHistogramDisplay(scores, y)
