"""What thresholds give, against scikit-learn, `predict` and a search through all of them."""

import numpy as np
import pytest
from conftest import make_detector
from sklearn.metrics import f1_score

from skad.metrics import (
    f1_optimal_threshold,
    threshold_at_false_alarm_rate,
    threshold_at_full_recall,
    threshold_report,
)


@pytest.fixture
def labelled():
    """Labels and scores with ties."""
    rng = np.random.default_rng(0)
    y = np.where(rng.random(60) < 0.4, -1, 1)
    return y, rng.integers(0, 25, 60) + 4.0 * y


class TestThresholds:
    def test_counts(self, labelled):
        y, scores = labelled
        report = threshold_report(y, scores, 7.0)
        called = scores < 7.0
        assert (scores == 7.0).any()  # which are good
        assert report.threshold == 7.0
        assert report.f1 == pytest.approx(f1_score(y == -1, called))
        assert report.accuracy == pytest.approx(np.mean(called == (y == -1)))
        assert report.false_alarm_rate == pytest.approx(called[y == 1].mean())
        assert report.recall == pytest.approx(called[y == -1].mean())
        assert report.false_positives == (called & (y == 1)).sum()
        assert report.false_negatives == (~called & (y == -1)).sum()

    def test_nothing_called(self, labelled):
        report = threshold_report(*labelled, -100.0)
        assert (report.f1, report.recall, report.false_alarm_rate) == (0.0, 0.0, 0.0)

    def test_of_a_detector(self, good, defective):
        """The count at ``offset_`` is what ``predict`` says, also where images lie at it."""
        X, y = np.concatenate([good, defective]), np.repeat([1, -1], [len(good), len(defective)])
        detector = make_detector().fit(good)
        scores = detector.score_samples(X)
        for at in (None, 0, 7, 13, 15):
            if at is not None:
                detector.offset_ = float(np.sort(scores)[at])
            called = detector.predict(X) == -1
            assert at is None or called.sum() == at
            report = threshold_report(y, scores, detector.offset_)
            assert report.false_positives == called[y == 1].sum()
            assert report.recall == called[y == -1].mean()
            assert report.accuracy == pytest.approx(np.mean(called == (y == -1)))

    def test_the_best_f1_of_all(self, labelled):
        y, scores = labelled
        best = f1_optimal_threshold(y, scores)
        tried = {t: f1_score(y == -1, scores <= t) for t in np.unique(scores)}
        assert best.f1 == pytest.approx(max(tried.values()))
        assert best == threshold_report(y, scores, best.threshold)
        highest_called = scores[scores < best.threshold].max()
        assert highest_called == max(t for t in tried if tried[t] == pytest.approx(best.f1))

    def test_full_recall(self, labelled):
        y, scores = labelled
        full = threshold_at_full_recall(y, scores)
        assert full.recall == 1
        assert full.false_negatives == 0
        # The next lower threshold that tells images apart lets a defect pass.
        lower = threshold_report(y, scores, scores[scores < full.threshold].max())
        assert lower.recall < 1

    @pytest.mark.parametrize("rate", [0, 0.05, 0.1, 0.29, 1])
    def test_the_highest_threshold_at_a_rate(self, labelled, rate):
        y, scores = labelled
        found = threshold_at_false_alarm_rate(y, scores, rate)
        every = [threshold_report(y, scores, t) for t in [*np.unique(scores), np.inf]]
        allowed = [report for report in every if report.false_alarm_rate <= rate]
        assert found.recall == max(report.recall for report in allowed)
        assert found.false_positives == max(report.false_positives for report in allowed)

    def test_rates_that_floats_miss(self):
        """0.29 * 100 is less than 29."""
        y, scores = np.repeat([1, -1], [100, 1]), np.arange(101.0)
        assert threshold_at_false_alarm_rate(y, scores, 0.29).false_positives == 29
        with pytest.raises(ValueError, match=r"rate=1\.5 must lie in \[0, 1\]"):
            threshold_at_false_alarm_rate(y, scores, 1.5)

    @pytest.mark.parametrize(
        "scores",
        [
            [0.1, 0.2, 0.6, 0.5, 0.9],
            [1.0, 2.0, 3.0, 0.0, np.nextafter(0.0, 1)],  # neighbours
            [1.0, 1.0, 1.0, 1.0, 1.0],
            [1e308, 1e308, -1e308, -1e308, -1e308],
            [np.inf, 1.0, 2.0, -np.inf, 0.0],
            [-1.0, -2.0, -3.0, 4.0, 5.0],  # the defective images lie highest
            [5e-324, 1e-323, 0.0, 0.0, 5e-324],
        ],
    )
    @pytest.mark.parametrize("find", [f1_optimal_threshold, threshold_at_full_recall])
    def test_thresholds_lie_between_scores(self, find, scores):
        """Also where the next score is a neighbour, infinite, or absent."""
        y, scores = np.array([1, 1, 1, -1, -1]), np.array(scores)
        found = find(y, scores)
        assert not np.isnan(found.threshold)
        assert found == threshold_report(y, scores, found.threshold)
        below = scores < found.threshold
        reachable = {t: scores <= t for t in scores}
        assert any((below == called).all() for called in reachable.values())
        if find is threshold_at_full_recall:
            fewest = scores <= scores[y == -1].max()
            np.testing.assert_array_equal(below, fewest)
        else:
            tried = [f1_score(y == -1, called) for called in reachable.values()]
            assert found.f1 == pytest.approx(max(tried))


@pytest.mark.parametrize(
    "threshold", [None, "2.0", [2.0], np.array([1.0, 2.0]), True, 1j, object()]
)
def test_a_threshold_that_is_no_number(threshold):
    with pytest.raises(TypeError, match=r"threshold must be a number, such as det\.offset_; got"):
        threshold_report([1, 1, -1], [3.0, 2.0, 1.0], threshold)


@pytest.mark.parametrize("threshold", [float("nan"), np.float32("nan"), np.array(np.nan)])
def test_a_threshold_that_is_nan(threshold):
    with pytest.raises(ValueError, match="threshold is NaN"):
        threshold_report([1, 1, -1], [3.0, 2.0, 1.0], threshold)


@pytest.mark.parametrize("threshold", [2, np.float32(2), np.array(2.0), np.uint8(2), float("inf")])
def test_numbers_of_any_kind_are_thresholds(threshold):
    report = threshold_report([1, 1, -1], [3.0, 2.0, 1.0], threshold)
    assert type(report.threshold) is float
    assert report.threshold == threshold
    assert report.false_positives == (2 if threshold == float("inf") else 0)
