"""Metrics of image scores against scikit-learn and hand-made numbers."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from skad.metrics import (
    average_precision,
    discriminability,
    f1_optimal_threshold,
    image_auroc,
    threshold_at_false_alarm_rate,
    threshold_at_full_recall,
)


class TestImageMetrics:
    def test_are_those_of_scikit_learn(self):
        rng = np.random.default_rng(0)
        y = np.where(rng.random(60) < 0.4, -1, 1)
        scores = rng.integers(0, 25, 60) + 4.0 * y  # with ties
        assert image_auroc(y, scores) == roc_auc_score(y, scores)
        # Defects are what is to be found.
        assert average_precision(y, scores) == average_precision_score(y == -1, -scores)
        assert average_precision(y, scores) != average_precision_score(y, scores)

    def test_extremes(self):
        assert image_auroc([1, 1, -1], [3.0, 2.0, 1.0]) == average_precision([1, -1], [2, 1]) == 1
        assert image_auroc([1, -1], [1.0, 1.0]) == 0.5

    @pytest.mark.parametrize(
        "metric",
        [
            image_auroc,
            average_precision,
            f1_optimal_threshold,
            threshold_at_false_alarm_rate,
            threshold_at_full_recall,
        ],
    )
    def test_unusable(self, metric):
        for y, scores, message in (
            ([1, 1], [0.0, 1.0], "both good"),
            ([0, 1], [0.0, 1.0], r"\+1 \(good\)"),
            ([1, -1], [0.0, 1.0, 2.0], "2 labels for 3 images"),
            ([1, -1], [0.0, np.nan], "NaN, first at 1"),
        ):
            with pytest.raises(ValueError, match=message):
                metric(y, scores)


class TestDiscriminability:
    def test_hand_check(self):
        assert discriminability([1, 2, 3], [5, 7, 9, 11]) == pytest.approx(3.564531154716027)

    def test_spreads_of_zero(self):
        assert discriminability([1, 1], [2, 2]) == np.inf
        assert np.isnan(discriminability([1, 1], [1]))

    def test_empty(self):
        with pytest.raises(ValueError, match="empty"):
            discriminability([], [1.0])
