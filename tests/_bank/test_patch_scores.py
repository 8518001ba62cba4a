"""Scores that are asked for only where they matter."""

import numpy as np
import pytest
import torch

from skad._bank import PatchScores, answered, answered_together
from skad._bank.patch_scores import Question


class Counted:
    """Knows the scores of patches by their single value, and counts who was asked for."""

    def __init__(self, exact):
        self.exact, self.asked = exact, []

    def __call__(self, rows, exclude_source):
        patches = rows[:, 0].long().numpy()
        self.asked.extend(patches.tolist())
        return self.exact[patches]


def refuse(rows, exclude_source=None):
    raise AssertionError("asked")


@pytest.fixture
def exact():
    return np.random.default_rng(0).gamma(4.0, size=300)


def patch_scores(n, bounds, tighten=None, exclude_source=None):
    """Scores of patches whose only value is their number."""
    return PatchScores(torch.arange(n)[:, None].float(), exclude_source, bounds, tighten)


@pytest.mark.parametrize("slack", [0.0, 0.02, 0.5, 10.0])
def test_highest_is_exact_whatever_the_bounds(exact, slack):
    bounds = exact * (1 + slack * np.random.default_rng(1).random(300))
    scores = patch_scores(300, bounds.copy())
    top = answered(scores.highest(), Counted(exact))
    assert top == exact.argmax()
    assert scores.values[top] == exact.max()
    # What was not asked for is still known from above.
    assert (scores.values >= exact).all()


def test_tight_bounds_spare_the_rest(exact):
    answer = Counted(exact)
    answered(patch_scores(300, exact * 1.01).highest(), answer)
    assert len(answer.asked) == 4


def test_useless_bounds_make_it_ask_for_all(exact):
    answer = Counted(exact)
    scores = patch_scores(300, np.full(300, 100.0))
    assert answered(scores.highest(), answer) == exact.argmax()
    assert sorted(answer.asked) == list(range(300))


def test_without_bounds_all_are_asked_for_at_once(exact):
    answer, searches = Counted(exact), []
    scores = patch_scores(300, None)

    def count(rows, exclude_source):
        searches.append(len(rows))
        return answer(rows, exclude_source)

    assert answered(scores.highest(), count) == exact.argmax()
    assert searches == [300]
    np.testing.assert_array_equal(answered(scores.all(), refuse), exact)


def test_lowest_number_where_several_are_equally_high():
    exact = np.array([1.0, 5.0, 5.0, 5.0] * 10)
    scores = patch_scores(40, exact[::-1] + exact)
    assert answered(scores.highest(), Counted(exact)) == 1


def test_ensure_asks_for_what_is_unknown(exact):
    answer = Counted(exact)
    scores = patch_scores(300, exact + 1)
    assert answered(scores.ensure(np.array([3, 5])), answer)
    assert answered(scores.ensure(np.array([5, 7])), answer)
    assert not answered(scores.ensure(np.array([3, 7])), answer)
    assert answer.asked == [3, 5, 7]
    assert scores.values[[3, 5, 7]].tolist() == exact[[3, 5, 7]].tolist()


def test_all(exact):
    scores, answer = patch_scores(300, exact + 1), Counted(exact)
    answered(scores.highest(), answer)
    np.testing.assert_array_equal(answered(scores.all(), answer), exact)
    np.testing.assert_array_equal(answered(scores.all(), refuse), exact)


def test_many_rivals_are_bounded_more_closely_before_they_are_asked_for(exact):
    answer, bounded = Counted(exact), []

    def tighten(patches):
        bounded.extend(patches.tolist())
        return exact[patches] * 1.001

    scores = patch_scores(300, np.maximum(exact.max() * 1.1, exact), tighten)
    assert answered(scores.highest(), answer) == exact.argmax()
    assert len(bounded) == len(set(bounded)) == 296  # all but those that were asked for at first
    assert len(answer.asked) < 30
    assert (scores.values >= exact).all()


def test_few_rivals_are_asked_for_at_once(exact):
    scores = patch_scores(300, exact * 1.01, refuse)
    assert answered(scores.highest(), Counted(exact)) == exact.argmax()


def test_closer_bounds_never_widen_what_is_known(exact):
    scores = patch_scores(300, exact + 1, lambda patches: exact[patches] + 2)
    answered(scores.highest(), Counted(exact))
    assert (scores.values <= exact + 1).all()


def test_several_are_answered_by_one_search(exact):
    """In as many rounds as the one that asks longest; each gets its own scores."""
    answer, searches = Counted(exact), []
    several = [
        patch_scores(300, exact * 1.01, exclude_source=7),
        patch_scores(300, np.full(300, 100.0), exclude_source=8),
        patch_scores(300, None, exclude_source=9),
    ]

    def score(rows, exclude_source):
        searches.append(exclude_source)
        return answer(rows, exclude_source)

    found = answered_together([scores.highest() for scores in several], score)
    assert found == [exact.argmax()] * 3
    assert searches[0].tolist() == [7] * 4 + [8] * 4 + [9] * 300
    # The second is alone from now on, and asks for 16 patches, 64, and the rest.
    assert searches[1:] == [8, 8, 8]


def test_what_leaves_out_nothing_is_searched_for_apart(exact):
    """An index of faiss serves such a search, and no other."""
    searches = []
    several = [patch_scores(300, None, exclude_source=source) for source in (None, 4, None, 5)]

    def score(rows, exclude_source):
        searches.append((len(rows), exclude_source))
        return exact[rows[:, 0].long().numpy()]

    found = answered_together([scores.all() for scores in several], score)
    np.testing.assert_array_equal(found, [exact] * 4)
    assert searches[0] == (600, None)
    assert searches[1][1].tolist() == [4] * 300 + [5] * 300


def test_who_asks_nothing_gets_a_result_too():
    def mute():
        return 5
        yield

    def curious():
        return 2 * (yield Question(torch.ones(1, 1), None))

    assert answered_together([], refuse) == []
    found = answered_together([mute(), curious(), mute()], lambda rows, _: rows.sum(1).numpy())
    assert found == [5, 2, 5]
