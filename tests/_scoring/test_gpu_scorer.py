"""The way a GPU scores, on the CPU: many images together, with scores that come from the host or not."""

import numpy as np
import pytest
import torch

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
