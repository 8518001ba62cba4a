"""Thresholds from scores of good images."""

import numpy as np
import pytest
from scipy import stats

from skad._scoring.thresholds import fitted_threshold, margin_at_ties, threshold_for_rate

SCORES = -np.array([1.0, 1.1, 1.3, 1.2, 0.9, 1.05])


def test_lies_at_the_rank_of_the_rate():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 20.0))  # 1 / (n + 1) = 0.05
    assert threshold_for_rate(scores, 0.05) == 1
    assert threshold_for_rate(scores, 0.1) == 2
    assert threshold_for_rate(scores, 0.125) == 2.5
    assert threshold_for_rate(scores, 0.5) == 10
    assert threshold_for_rate(scores, 0.99) == 19


@pytest.mark.parametrize(("n", "rate"), [(39, 0.1), (30, 0.05), (200, 0.02)])
def test_rate_on_exchangeable_scores(n, rate):
    """Between two ranks as well, where the lower alone would give 1 / 31 in place of 0.05."""
    draws = -np.random.default_rng(0).lognormal(sigma=0.3, size=(4000, n + 1))
    alarms = [new[0] < threshold_for_rate(new[1:], rate) for new in draws]
    assert np.mean(alarms) == pytest.approx(rate, abs=0.012)


def test_fitted_beyond_the_lowest_score():
    """By hand: Student's quantile of a new value of a normal sample of logarithms."""
    logs = np.log(-SCORES)
    t = stats.t.ppf(0.99, 5)
    by_hand = -np.exp(logs.mean() + t * logs.std(ddof=1) * np.sqrt(1 + 1 / 6))
    assert by_hand < SCORES.min()
    assert fitted_threshold(SCORES, 0.01) == pytest.approx(by_hand, rel=1e-12)
    assert threshold_for_rate(SCORES, 0.01) == fitted_threshold(SCORES, 0.01)


def test_of_scores_that_are_no_distances():
    """z-scores of an ensemble have both signs: no logarithms."""
    scores = SCORES + 1.1
    t = stats.t.ppf(0.99, 5)
    by_hand = scores.mean() - t * scores.std(ddof=1) * np.sqrt(1 + 1 / 6)
    assert fitted_threshold(scores, 0.01) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("n", [2, 6, 18])
@pytest.mark.parametrize("law", ["lognormal", "normal"])
def test_rate_of_fitted_thresholds(n, law):
    draws = getattr(np.random.default_rng(1), law)(size=(4000, n + 1))
    draws = -draws if law == "lognormal" else draws
    alarms = [new[0] < fitted_threshold(new[1:], 0.05) for new in draws]
    # Exactly 0.05 but for the clamp at the lowest score; three standard errors.
    assert 0.035 < np.mean(alarms) < 0.061


@pytest.mark.parametrize("scores", [SCORES, SCORES + 1.1, np.zeros(5), np.array([-1.0, -1e300])])
@pytest.mark.parametrize("rate", [1e-300, 1e-9, 0.1, 0.9])
def test_is_finite_and_never_between_more_scores_than_the_rate(scores, rate):
    found = threshold_for_rate(scores, rate)
    assert np.isfinite(found)
    assert np.mean(scores < found) <= rate


def test_one_score():
    assert threshold_for_rate(np.array([-3.0]), 0.05) == -3


def test_margin_where_scores_tie():
    assert margin_at_ties(np.array([1.0, 1.0, 2.0]), 1.0, 0.01) == 0.01
    assert margin_at_ties(np.array([1.0, 1.5, 2.0]), 1.0, 0.01) == 0
