"""Intervals, against scikit-learn, SciPy, and the metrics on images that were drawn."""

import numpy as np
import pytest
from scipy.stats import binomtest

from skad.benchmark._intervals import (
    of_mean,
    percentiles,
    resampled,
    same_images,
    weighted_figures,
    wilson,
)
from skad.metrics import average_precision, image_auroc, threshold_at_false_alarm_rate


@pytest.mark.parametrize(("k", "n"), [(0, 20), (3, 25), (25, 25), (40, 141)])
def test_wilson(k, n):
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k / n, n) == pytest.approx(tuple(expected))


def test_the_mean_of_fractions():
    """Equal fractions: the interval shrinks by the square root of their number."""
    low, high = wilson(0.5, 30)
    assert of_mean([0.5], [(low, high)]) == pytest.approx((low, high))
    four = of_mean([0.5] * 4, [(low, high)] * 4)
    assert four == pytest.approx((0.5 - (0.5 - low) / 2, 0.5 + (high - 0.5) / 2))


@pytest.fixture
def measured():
    rng = np.random.default_rng(0)
    y = np.repeat([1, -1], [45, 30])
    return y, rng.integers(0, 25, 75) + 6.0 * y  # with ties


def test_weights_are_images_that_come_several_times(measured):
    y, scores = measured
    rng = np.random.default_rng(1)
    weights = np.stack([np.ones(75, int), *(np.zeros(75, int) for _ in range(20))])
    for row in weights[1:]:
        for label in (1, -1):
            of_label = np.flatnonzero(y == label)
            np.add.at(row, rng.choice(of_label, len(of_label)), 1)
    figures = weighted_figures(y, scores, weights)
    for i, row in enumerate(weights):
        drawn = np.repeat(y, row), np.repeat(scores, row)
        assert figures["image_auroc"][i] == pytest.approx(image_auroc(*drawn))
        assert figures["average_precision"][i] == pytest.approx(average_precision(*drawn))
        found = threshold_at_false_alarm_rate(*drawn, 0.05).recall
        assert figures["recall_at_5_percent"][i] == pytest.approx(found)


def result(measured, category="a", **images):
    y, scores = measured
    names = [str(i) for i in range(len(y))]
    held = {"names": names, "labels": y.tolist(), "scores": scores.tolist(), **images}
    return {"category": category, "images": held}


def test_width(measured):
    """About that of the normal approximation by Hanley and McNeil, and the same each time."""
    auroc, found = image_auroc(*measured), resampled([result(measured)])["image_auroc"]
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc) + 29 * (q1 - auroc**2) + 44 * (q2 - auroc**2)
    assert found.std() == pytest.approx(np.sqrt(variance / 45 / 30), rel=0.2)
    assert found.mean() == pytest.approx(auroc, abs=0.005)
    low, high = percentiles(found)
    assert low < auroc < high
    np.testing.assert_array_equal(found, resampled([result(measured)])["image_auroc"])


def test_draws_are_paired_within_a_category_only(measured):
    y, scores = measured
    one, other = resampled([result(measured)]), resampled([result((y, scores + 0.2 * y))])
    apart = resampled([result(measured, "b")])["image_auroc"]
    differences = other["image_auroc"] - one["image_auroc"]
    assert differences.std() < one["image_auroc"].std() / 3
    assert abs(np.corrcoef(apart, one["image_auroc"])[0, 1]) < 0.1


def test_seeds_are_averaged_within_a_replicate(measured):
    y, scores = measured
    worse = (y, scores - 3 * y)
    one, other = (resampled([result(m)])["image_auroc"] for m in (measured, worse))
    both = resampled([result(measured), result(worse)])["image_auroc"]
    np.testing.assert_allclose(both, (one + other) / 2)


def test_no_intervals_without_images_or_of_different_ones(measured):
    new, renamed = result(measured), result(measured, names=["x"] * 75)
    assert resampled([{"category": "a"}]) == resampled([new, {"category": "a"}]) == {}
    assert resampled([new, renamed]) == {}
    assert same_images(new, new)
    assert not same_images(new, renamed)
