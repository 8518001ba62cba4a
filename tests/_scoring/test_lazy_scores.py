"""Scores that are computed only where they matter."""

import numpy as np
import pytest
import torch

from skad._images import Footprint
from skad._scoring.heatmaps import Heatmap
from skad._scoring.lazy_scores import LazyScores, MapPeak, compute, together
from skad._scoring.maps import on_grid


class Counted:
    """Knows the scores of patches by their single value, and counts what was computed."""

    def __init__(self, exact):
        self.exact, self.asked, self.left_out = exact, [], []

    def __call__(self, patches, leave_out):
        numbers = patches[:, 0].long().numpy()
        self.asked.extend(numbers.tolist())
        self.left_out.append(leave_out)
        return self.exact[numbers]


def refuse(patches):
    raise AssertionError("asked")


@pytest.fixture
def exact():
    return np.random.default_rng(0).gamma(4.0, size=300)


def lazy_scores(bounds, tighten=None, source=None):
    """Scores of patches whose only value is their number."""
    patches = torch.arange(len(bounds))[:, None].float()
    unchanged = bounds.copy()
    return LazyScores(patches, source, bounds, tighten or (lambda some: unchanged[some]))


def highest(lazy, score):
    compute([(lazy, lazy.rivals)], score)
    return int(lazy.known().argmax())


class TestHighest:
    @pytest.mark.parametrize("slack", [0.0, 0.02, 0.5, 10.0])
    def test_exact_whatever_the_bounds(self, exact, slack):
        lazy = lazy_scores(exact * (1 + slack * np.random.default_rng(1).random(300)))
        top = highest(lazy, Counted(exact))
        assert top == exact.argmax()
        assert lazy.values[top] == exact.max()
        # What was not computed is still known from above.
        assert (lazy.values >= exact).all()

    def test_tight_bounds_spare_the_rest(self, exact):
        score = Counted(exact)
        highest(lazy_scores(exact * 1.01), score)
        assert len(score.asked) == 4

    def test_useless_bounds_have_all_computed(self, exact):
        score = Counted(exact)
        assert highest(lazy_scores(np.full(300, 100.0)), score) == exact.argmax()
        assert sorted(score.asked) == list(range(300))

    def test_lowest_number_where_several_are_equally_high(self):
        exact = np.array([1.0, 5.0, 5.0, 5.0] * 10)
        assert highest(lazy_scores(exact[::-1] + exact), Counted(exact)) == 1

    def test_many_rivals_are_bounded_more_closely_before_they_are_computed(self, exact):
        score, bounded = Counted(exact), []

        def tighten(patches):
            bounded.extend(patches.tolist())
            return exact[patches] * 1.001

        lazy = lazy_scores(np.maximum(exact.max() * 1.1, exact), tighten)
        assert highest(lazy, score) == exact.argmax()
        assert len(bounded) == len(set(bounded)) == 296  # all but those that were computed at first
        assert len(score.asked) < 30
        assert (lazy.values >= exact).all()

    def test_few_rivals_are_computed_at_once(self, exact):
        assert highest(lazy_scores(exact * 1.01, refuse), Counted(exact)) == exact.argmax()

    def test_closer_bounds_never_widen_what_is_known(self, exact):
        lazy = lazy_scores(exact + 1, lambda patches: exact[patches] + 2)
        highest(lazy, Counted(exact))
        assert (lazy.values <= exact + 1).all()


def test_all_are_computed_at_once_and_only_once(exact):
    score, lazy = Counted(exact), lazy_scores(exact + 1)
    highest(lazy, score)
    n_before = len(score.asked)
    for _ in range(2):
        compute([(lazy, lazy.unknown)], score)
        np.testing.assert_array_equal(lazy.values, exact)
        assert len(score.asked) == n_before + 300


class TestSeveralImages:
    def test_are_computed_in_one_search(self, exact):
        """In as many rounds as the one that needs most; each gets its own scores."""
        score = Counted(exact)
        images = [
            lazy_scores(exact * 1.01, source=7),
            lazy_scores(np.full(300, 100.0), source=8),
            lazy_scores(exact * 1.02, source=9),
        ]
        compute([(lazy, lazy.rivals) for lazy in images], score)
        assert [lazy.known().argmax() for lazy in images] == [exact.argmax()] * 3
        assert score.left_out[0].tolist() == [7] * 4 + [8] * 4 + [9] * 4
        # The second is alone from now on, and needs 16 patches, 64, and the rest.
        assert score.left_out[1:] == [8, 8, 8]

    def test_what_leaves_out_nothing_is_searched_for_apart(self, exact):
        """An index of faiss serves such a search, and no other."""
        score = Counted(exact)
        images = [lazy_scores(exact + 1, source=source) for source in (None, 4, None, 5)]
        compute([(lazy, lazy.unknown) for lazy in images], score)
        for lazy in images:
            np.testing.assert_array_equal(lazy.values, exact)
        assert score.left_out[0] is None
        assert score.left_out[1].tolist() == [4] * 300 + [5] * 300

    def test_none_at_all(self):
        compute([], refuse)

    def test_what_is_left_out_of_a_search_for_several(self):
        assert together([None, None], [2, 3]) is None
        assert together([4], [3]) == 4
        assert together([4, 1], [2, 1]).tolist() == [4, 4, 1]


class TestMapPeak:
    @pytest.fixture(params=[(0, 96), (24, 88)], ids=["whole", "padded"])
    def footprint(self, request):
        """An image on all of a canvas of 12 x 12 patches of 8 pixels, or on some of its rows."""
        top, bottom = request.param
        mask = np.zeros((12, 12), dtype=bool)
        mask[top // 8 : bottom // 8] = True
        return Footprint(mask, (top, bottom, 0, 96))

    @pytest.mark.parametrize("sigma", [0.0, 4.0])
    def test_is_that_of_the_whole_map_by_few_patches(self, footprint, sigma):
        exact = np.random.default_rng(2).gamma(4.0, size=int(footprint.mask.sum()))
        heatmap, score = Heatmap(96, sigma), Counted(exact)
        lazy = lazy_scores(exact * 1.02)
        peak = MapPeak(lazy, footprint, heatmap)
        compute([(lazy, peak.unknown)], score)
        top, bottom, left, right = footprint.pixels
        whole = heatmap.render(on_grid(exact, footprint.mask))
        assert peak.value == whole[top:bottom, left:right].max()
        assert len(score.asked) < 0.7 * len(exact)
        assert len(score.asked) == len(set(score.asked))

    def test_padding_is_left_out(self):
        """The border of the image is repeated into it, and smoothing leaves more of it there."""
        mask = np.zeros((12, 12), dtype=bool)
        mask[6:] = True
        exact = np.ones((6, 12))
        exact[0, 5] = 9.0
        lazy = lazy_scores(exact.ravel() * 1.02)
        peak = MapPeak(lazy, Footprint(mask, (48, 96, 0, 96)), Heatmap(96, 4.0))
        compute([(lazy, peak.unknown)], Counted(exact.ravel()))
        whole = Heatmap(96, 4.0).render(on_grid(exact.ravel(), mask))
        assert peak.value == whole[48:].max() < whole.max()
