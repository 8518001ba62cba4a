"""The way a GPU scores, on the CPU: many images together, with scores that come from the host or not."""

import numpy as np
import pytest
import torch
from conftest import make_detector, make_reconpatch

from skad._bank import MemoryBank
from skad._scoring import fast, gpu
from skad._scoring.fast import FastScorer
from skad._scoring.gpu import HighestPatches


class Counted:
    """Knows the scores of patches by their single value, and counts who was asked for."""

    def __init__(self, exact):
        self.exact, self.asked = exact, []

    def __call__(self, rows, leave_out):
        patches = rows[:, 0].long().numpy()
        self.asked.extend(patches.tolist())
        return self.exact[patches]


class TestHighestPatches:
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

            highest = HighestPatches(rows, torch.from_numpy(bounds).view(3, -1), on_device)
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
        patches, scores = HighestPatches(rows, bounds, None).find(Counted(exact))
        assert np.isnan(scores[0])
        np.testing.assert_array_equal(patches[1:], exact.reshape(3, 300)[1:].argmax(1))

    def test_few_patches(self, exact, find):
        found, _ = find(exact[:12], exact[:12] + 1, n_patches=4)
        np.testing.assert_array_equal(found, exact[:12].reshape(3, 4).argmax(1))


class TestTogether:
    """A GPU scores the images of a batch together; the way it does gives the same on a CPU."""

    @pytest.fixture
    def as_on_a_gpu(self, monkeypatch):
        def score_batches(scorer, extractor, batches, maps):
            return gpu.score_batches(scorer, extractor, batches, maps)

        monkeypatch.setattr(FastScorer, "score_batches", score_batches)
        monkeypatch.setattr(fast, "bounds_pay", lambda bank, device: False)
        monkeypatch.setattr("skad._bank.bounds.has_fast_halves", lambda device: True)

    @pytest.fixture
    def searched(self, monkeypatch):
        """How many patches every search was for."""
        searched, search = [], MemoryBank.search

        def counted(bank, rows, *args, **kwargs):
            searched.append(len(rows))
            return search(bank, rows, *args, **kwargs)

        monkeypatch.setattr(MemoryBank, "search", counted)
        return searched

    @pytest.mark.parametrize(
        "params",
        [
            {"image_score": "patch"},
            {"n_neighbors": 3, "b": 5, "image_score": "patch"},
            {"distance": "squared", "n_neighbors": 2},
            {"geometry": "pad", "aggregation": "adaptive", "image_score": 0.1},
        ],
    )
    @pytest.mark.parametrize("make", [make_detector, make_reconpatch])
    def test_same_scores_as_one_by_one(
        self, good, defective, as_on_a_gpu, searched, monkeypatch, make, params
    ):
        with monkeypatch.context() as undone:
            undone.undo()
            det = make(batch_size=3, **params).fit(good)
            expected, scores = det.predict_heatmap(defective, return_scores=True)
            expected_of_good = det.score_samples(good)
        searched.clear()
        maps, together = det.predict_heatmap(defective, return_scores=True)
        np.testing.assert_allclose(together, scores, rtol=1e-6)
        np.testing.assert_allclose(maps, expected, rtol=1e-6)
        # Four images in batches of three and one: all patches, then the highest of each.
        assert len(defective) == 4
        by_patch = params.get("image_score") == "patch"
        assert len(searched) == 2 * (1 + by_patch)
        assert searched[1::2] == ([3, 1] if by_patch else searched[1:])
        np.testing.assert_allclose(det.score_samples(defective), scores, rtol=1e-6)
        np.testing.assert_allclose(det.score_samples(good), expected_of_good, rtol=1e-6)

    def test_few_patches_are_searched(self, good, defective, as_on_a_gpu, searched, monkeypatch):
        det = make_detector(image_size=96, batch_size=3, image_score="patch").fit(good)
        searched.clear()
        measured, measure = [], gpu.batch_distances

        def counted(bank, rows, k):
            measured.append(rows.shape[:2])
            return measure(bank, rows, k)

        monkeypatch.setattr(gpu, "batch_distances", counted)
        det.score_samples(defective)
        # Those with the highest bounds; an image has 12 x 12.
        assert measured == [(3, 32), (1, 32)]
        assert searched == []
        det.set_params(b=5).fit(good)
        searched.clear()
        det.score_samples(defective)
        assert searched == [3, 1]  # the highest of each image, to be weighted
