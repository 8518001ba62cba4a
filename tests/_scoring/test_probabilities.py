"""Maps from scores to probabilities, held to what they are defined by."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from skad._scoring.probabilities import LabelledScores, fit_isotonic, fit_sigmoid


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(0)
    return LabelledScores.of(rng.normal(2, 0.5, 40), rng.normal(3, 0.7, 15), n_good=120)


def test_targets_and_weights():
    found = LabelledScores.of(np.array([1.0, 2.0]), np.array([3.0]), n_good=6)
    np.testing.assert_array_equal(found.anomalies, [1, 2, 3])
    np.testing.assert_allclose(found.targets, [1 / 4, 1 / 4, 2 / 3])
    np.testing.assert_array_equal(found.weights, [3, 3, 1])


def test_sigmoid_has_the_highest_likelihood(scores):
    def loss(line):
        p = expit(line[0] * scores.anomalies + line[1])
        return -np.sum(
            scores.weights * (scores.targets * np.log(p) + (1 - scores.targets) * np.log1p(-p))
        )

    expected = minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-8})
    found = fit_sigmoid(scores)
    np.testing.assert_allclose([found.slope, found.intercept], expected.x, rtol=1e-4)
    # So the mean probability is the mean target, which is the share of defects but for the prior.
    p = expit(found.log_odds(scores.anomalies))
    assert np.average(p, weights=scores.weights) == pytest.approx(
        np.average(scores.targets, weights=scores.weights)
    )


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_sigmoid_follows_the_scale_of_scores(scores, scale):
    found = fit_sigmoid(scores._replace(anomalies=scores.anomalies * scale))
    np.testing.assert_allclose(
        found.log_odds(scores.anomalies * scale),
        fit_sigmoid(scores).log_odds(scores.anomalies),
        rtol=1e-6,
    )


def test_isotonic_rises_and_is_constant_outside(scores):
    found = fit_isotonic(scores)
    grid = np.linspace(-5, 10, 200)
    p = expit(found.log_odds(grid))
    assert (np.diff(p) >= -1e-12).all()
    assert p[0] < p[-1]
    assert np.isfinite(found.log_odds(grid)).all()
    assert set(found.log_odds(np.array([99.0, 1e9]))) == {found.log_odds(grid)[-1]}
    means = [np.average(x, weights=scores.weights) for x in (
        expit(found.log_odds(scores.anomalies)), scores.targets,
    )]  # fmt: skip
    assert means[0] == pytest.approx(means[1])


@pytest.mark.parametrize("fit", [fit_sigmoid, fit_isotonic])
@pytest.mark.parametrize(
    ("good", "defective"),
    [([5.0, 6.0], [1.0, 2.0]), ([1.0, 1.0], [1.0])],
    ids=["reversed", "equal"],
)
def test_flat_where_scores_say_the_contrary(fit, good, defective):
    scores = LabelledScores.of(np.array(good), np.array(defective), n_good=2)
    found = fit(scores)
    assert found.is_flat
    share = np.average(scores.targets, weights=scores.weights)
    np.testing.assert_allclose(expit(found.log_odds(np.array([0.0, 9.0]))), share)


@pytest.mark.parametrize("fit", [fit_sigmoid, fit_isotonic])
def test_probabilities_are_right_on_new_scores(fit):
    """Of the images with a probability between a and b, about that fraction is defective."""
    rng = np.random.default_rng(1)

    def draw(n):
        return rng.normal(0, 1, 4 * n), rng.normal(2, 1, n)

    found = fit(LabelledScores.of(*draw(300), n_good=1200))
    good, defective = draw(20_000)
    p = expit(found.log_odds(np.concatenate([good, defective])))
    is_defective = np.repeat([0.0, 1.0], [len(good), len(defective)])
    for low in np.arange(0, 1, 0.2):
        inside = (p >= low) & (p < low + 0.2)
        assert abs(is_defective[inside].mean() - p[inside].mean()) < 0.08
