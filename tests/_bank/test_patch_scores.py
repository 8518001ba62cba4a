"""Scores that are asked for only where they matter."""

import numpy as np
import pytest
import torch

from skad._bank import HighestOfEach, PatchScores, answered, answered_together
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


def patch_scores(score, bounds, tighten=None, exclude_source=None, n=300):
    """Scores of patches whose only value is their number."""
    return PatchScores(torch.arange(n)[:, None].float(), exclude_source, score, bounds, tighten)


@pytest.mark.parametrize("slack", [0.0, 0.02, 0.5, 10.0])
def test_highest_is_exact_whatever_the_bounds(exact, slack):
    bounds = exact * (1 + slack * np.random.default_rng(1).random(300))
    scores = patch_scores(Counted(exact), bounds.copy())
    top = answered(scores.highest())
    assert top == exact.argmax()
    assert scores.values[top] == exact.max()
    # What was not asked for is still known from above.
    assert (scores.values >= exact).all()


def test_tight_bounds_spare_the_rest(exact):
    answer = Counted(exact)
    answered(patch_scores(answer, exact * 1.01).highest())
    assert len(answer.asked) == 4


def test_useless_bounds_make_it_ask_for_all(exact):
    answer = Counted(exact)
    scores = patch_scores(answer, np.full(300, 100.0))
    assert answered(scores.highest()) == exact.argmax()
    assert sorted(answer.asked) == list(range(300))


def test_without_bounds_all_are_asked_for_at_once(exact):
    answer, searches = Counted(exact), []

    def count(rows, exclude_source):
        searches.append(len(rows))
        return answer(rows, exclude_source)

    scores = patch_scores(count, None)
    assert answered(scores.highest()) == exact.argmax()
    np.testing.assert_array_equal(answered(scores.all()), exact)
    assert searches == [300]


def test_lowest_number_where_several_are_equally_high():
    exact = np.array([1.0, 5.0, 5.0, 5.0] * 10)
    scores = patch_scores(Counted(exact), exact[::-1] + exact, n=40)
    assert answered(scores.highest()) == 1


def test_ensure_asks_for_what_is_unknown(exact):
    answer = Counted(exact)
    scores = patch_scores(answer, exact + 1)
    assert answered(scores.ensure(np.array([3, 5])))
    assert answered(scores.ensure(np.array([5, 7])))
    assert not answered(scores.ensure(np.array([3, 7])))
    assert answer.asked == [3, 5, 7]
    assert scores.values[[3, 5, 7]].tolist() == exact[[3, 5, 7]].tolist()


def test_all(exact):
    answer = Counted(exact)
    scores = patch_scores(answer, exact + 1)
    answered(scores.highest())
    np.testing.assert_array_equal(answered(scores.all()), exact)
    n_asked = len(answer.asked)
    np.testing.assert_array_equal(answered(scores.all()), exact)
    assert len(answer.asked) == n_asked


def test_many_rivals_are_bounded_more_closely_before_they_are_asked_for(exact):
    answer, bounded = Counted(exact), []

    def tighten(patches):
        bounded.extend(patches.tolist())
        return exact[patches] * 1.001

    scores = patch_scores(answer, np.maximum(exact.max() * 1.1, exact), tighten)
    assert answered(scores.highest()) == exact.argmax()
    assert len(bounded) == len(set(bounded)) == 296  # all but those that were asked for at first
    assert len(answer.asked) < 30
    assert (scores.values >= exact).all()


def test_few_rivals_are_asked_for_at_once(exact):
    scores = patch_scores(Counted(exact), exact * 1.01, refuse)
    assert answered(scores.highest()) == exact.argmax()


def test_closer_bounds_never_widen_what_is_known(exact):
    scores = patch_scores(Counted(exact), exact + 1, lambda patches: exact[patches] + 2)
    answered(scores.highest())
    assert (scores.values <= exact + 1).all()


def results(askings, at_once=100):
    found = dict(answered_together(askings, at_once))
    return [found[i] for i in range(len(found))]


def test_several_are_answered_by_one_search(exact):
    """In as many rounds as the one that asks longest; each gets its own scores."""
    answer, searches = Counted(exact), []

    def score(rows, exclude_source):
        searches.append(exclude_source)
        return answer(rows, exclude_source)

    several = [
        patch_scores(score, exact * 1.01, exclude_source=7),
        patch_scores(score, np.full(300, 100.0), exclude_source=8),
        patch_scores(score, None, exclude_source=9),
    ]
    assert results([scores.highest() for scores in several]) == [exact.argmax()] * 3
    assert searches[0].tolist() == [7] * 4 + [8] * 4 + [9] * 300
    # The second is alone from now on, and asks for 16 patches, 64, and the rest.
    assert searches[1:] == [8, 8, 8]


def test_what_leaves_out_nothing_is_searched_for_apart(exact):
    """An index of faiss serves such a search, and no other."""
    searches = []

    def score(rows, exclude_source):
        searches.append((len(rows), exclude_source))
        return exact[rows[:, 0].long().numpy()]

    several = [patch_scores(score, None, exclude_source=source) for source in (None, 4, None, 5)]
    np.testing.assert_array_equal(results([scores.all() for scores in several]), [exact] * 4)
    assert searches[0] == (600, None)
    assert searches[1][1].tolist() == [4] * 300 + [5] * 300


def test_different_scores_are_asked_for_apart(exact):
    """Patches of one image and the highest patch of another may be wanted in the same round."""
    once, twice = Counted(exact), Counted(2 * exact)
    several = [patch_scores(score, None, exclude_source=0) for score in [once, twice, once]]
    found = results([scores.all() for scores in several])
    np.testing.assert_array_equal(found, [exact, 2 * exact, exact])
    assert (len(once.asked), len(twice.asked)) == (600, 300)


def echo(rows, exclude_source):
    return rows.sum(1).double().numpy()


def rounds(n, under_way):
    """Asks n times; notes how many are under way."""
    under_way.append(under_way[-1] + 1)
    for _ in range(n):
        assert (yield Question(torch.ones(2, 3), 5, echo)).tolist() == [3, 3]
    under_way.append(under_way[-1] - 1)
    return n


def test_the_next_comes_when_one_has_finished():
    under_way, taken = [0], []

    def askings():
        for n in (1, 20, 0, 2, 2, 0):
            taken.append(n)
            yield rounds(n, under_way)

    found = answered_together(askings(), at_once=2)
    assert next(found) == (0, 1)
    assert taken == [1, 20]
    assert list(found) == [(2, 0), (3, 2), (4, 2), (5, 0), (1, 20)]
    assert max(under_way) == 2


def test_who_asks_what_few_ask_waits_for_others():
    """Ones that finish one by one ask for their last scores together, not in a search each."""
    sizes = []

    def last(rows, exclude_source):
        sizes.append(len(rows))
        return echo(rows, exclude_source)

    def asking(n):
        yield from rounds(n, [0])
        return float((yield Question(torch.ones(1, 3), 5, last))[0])

    assert results([asking(n) for n in range(1, 9)]) == [3.0] * 8
    assert sizes == [4, 2, 1, 1]


def test_who_asks_nothing_gets_a_result_too():
    def mute():
        return 5
        yield

    assert results([]) == []
    assert results([mute(), rounds(2, [0]), mute()]) == [5, 2, 5]
    assert answered(mute()) == 5


class TestHighestOfEach:
    @pytest.fixture
    def exact(self):
        """Scores of three images of 300 patches."""
        return np.random.default_rng(3).gamma(4.0, size=900)

    @pytest.fixture(params=["host", "device"])
    def find(self, request):
        """Patches found, and those that were computed; scores are the host's or the device's."""

        def find(exact, bounds, n_patches=300):
            rows = torch.arange(len(exact)).reshape(3, n_patches, 1).float()
            score = Counted(exact)
            on_device = None
            if request.param == "device":

                def on_device(rows):
                    return torch.from_numpy(score(rows.flatten(0, 1), None)).view(rows.shape[:2])

            highest = HighestOfEach(rows, torch.from_numpy(bounds).view(3, -1), on_device)
            assert bool(score.asked) == (request.param == "device")
            patches, scores = highest.find(score)
            np.testing.assert_array_equal(scores, exact.reshape(3, -1)[np.arange(3), patches])
            return patches, score.asked

        return find

    @pytest.mark.parametrize("slack", [0.0, 0.02, 0.5, 10.0])
    def test_exact_whatever_the_bounds(self, exact, find, slack):
        bounds = exact * (1 + slack * np.random.default_rng(1).random(900))
        found, asked = find(exact, bounds)
        np.testing.assert_array_equal(found, exact.reshape(3, 300).argmax(1))
        few = slack <= 0.5
        assert (len(asked) == 3 * 32) == few

    def test_patches_that_do_not_count(self, exact, find):
        bounds = exact + 100.0  # as many rivals as patches
        left_out = np.ones(900, dtype=bool)
        left_out[[5, 7, 9, 310, 700, 701]] = False
        bounds[left_out] = -np.inf
        found, _ = find(exact, bounds)
        masked = np.where(left_out, -np.inf, exact).reshape(3, 300)
        np.testing.assert_array_equal(found, masked.argmax(1))

    def test_many_of_them_beside_many_rivals(self, exact, find):
        bounds = exact + 100.0
        bounds[::2] = -np.inf
        found, asked = find(exact, bounds)
        np.testing.assert_array_equal(found, 1 + 2 * exact[1::2].reshape(3, 150).argmax(1))
        assert all(patch % 2 for patch in asked)

    def test_image_with_infinite_bounds(self, exact, find):
        found, _ = find(exact, np.full(900, np.inf))
        np.testing.assert_array_equal(found, exact.reshape(3, 300).argmax(1))

    def test_image_without_scores_beside_rivals(self, exact):
        """NaN stays the score of its image and harms no other."""
        exact = exact.copy()
        exact[:300] = np.nan
        rows = torch.arange(900).reshape(3, 300, 1).float()
        bounds = torch.from_numpy(exact + 100.0).view(3, 300)
        patches, scores = HighestOfEach(rows, bounds, None).find(Counted(exact))
        assert np.isnan(scores[0])
        np.testing.assert_array_equal(patches[1:], exact.reshape(3, 300)[1:].argmax(1))

    def test_few_patches(self, exact, find):
        found, _ = find(exact[:12], exact[:12] + 1, n_patches=4)
        np.testing.assert_array_equal(found, exact[:12].reshape(3, 4).argmax(1))
