"""Scores that are computed only where they matter."""

import numpy as np
import pytest

from skad._bank import PatchScores


class Counted:
    """Scores, and how many of them were asked for."""

    def __init__(self, exact):
        self.exact, self.asked = exact, []

    def __call__(self, patches):
        self.asked.extend(patches.tolist())
        return self.exact[patches]


@pytest.fixture
def exact():
    return np.random.default_rng(0).gamma(4.0, size=300)


@pytest.mark.parametrize("slack", [0.0, 0.02, 0.5, 10.0])
def test_highest_is_exact_whatever_the_bounds(exact, slack):
    bounds = exact * (1 + slack * np.random.default_rng(1).random(300))
    scores = PatchScores(bounds.copy(), Counted(exact))
    top = scores.highest()
    assert top == exact.argmax()
    assert scores.values[top] == exact.max()
    # What was not computed is still known from above.
    assert (scores.values >= exact).all()


def test_tight_bounds_spare_the_rest(exact):
    compute = Counted(exact)
    PatchScores(exact * 1.01, compute).highest()
    assert len(compute.asked) == 4


def test_useless_bounds_make_it_compute_all(exact):
    compute = Counted(exact)
    scores = PatchScores(np.full(300, 100.0), compute)
    assert scores.highest() == exact.argmax()
    assert sorted(compute.asked) == list(range(300))


def test_lowest_number_where_several_are_equally_high():
    exact = np.array([1.0, 5.0, 5.0, 5.0] * 10)
    assert PatchScores(exact[::-1] + exact, Counted(exact)).highest() == 1


def test_ensure_computes_what_is_unknown(exact):
    compute = Counted(exact)
    scores = PatchScores(exact + 1, compute)
    assert scores.ensure(np.array([3, 5]))
    assert scores.ensure(np.array([5, 7]))
    assert not scores.ensure(np.array([3, 7]))
    assert compute.asked == [3, 5, 7]
    assert scores.values[[3, 5, 7]].tolist() == exact[[3, 5, 7]].tolist()


def test_all(exact):
    scores = PatchScores(exact + 1, Counted(exact))
    scores.highest()
    np.testing.assert_array_equal(scores.all(), exact)


def test_certain_scores_are_not_computed_again(exact):
    def refuse(patches):
        raise AssertionError("computed")

    scores = PatchScores(exact, refuse, certain=True)
    assert scores.highest() == exact.argmax()
    np.testing.assert_array_equal(scores.all(), exact)


def test_many_rivals_are_bounded_more_closely_before_they_are_computed(exact):
    compute, asked = Counted(exact), []

    def tighten(patches):
        asked.extend(patches.tolist())
        return exact[patches] * 1.001

    wide = np.maximum(exact.max() * 1.1, exact)
    scores = PatchScores(wide, compute, tighten)
    assert scores.highest() == exact.argmax()
    assert len(asked) == len(set(asked)) == 296  # all but those that were computed at first
    assert len(compute.asked) < 30
    assert (scores.values >= exact).all()


def test_few_rivals_are_computed_at_once(exact):
    def refuse(patches):
        raise AssertionError("bounded")

    scores = PatchScores(exact * 1.01, Counted(exact), refuse)
    assert scores.highest() == exact.argmax()


def test_closer_bounds_never_widen_what_is_known(exact):
    scores = PatchScores(exact + 1, Counted(exact), lambda patches: exact[patches] + 2)
    scores.highest()
    assert (scores.values <= exact + 1).all()
