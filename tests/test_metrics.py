"""Metrics against scikit-learn and hand-made numbers."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from skad.metrics import discriminability, pixel_auroc


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    heatmaps = [rng.integers(0, 20, size=(9, 7)) / 10 for _ in range(5)]
    masks = [rng.random((9, 7)) < 0.2 for _ in range(4)] + [np.zeros((9, 7))]
    return masks, heatmaps


def test_equals_scikit_learn_with_ties(maps):
    masks, heatmaps = maps
    expected = roc_auc_score(np.ravel(masks).astype(bool), np.ravel(heatmaps))
    assert pixel_auroc(masks, heatmaps) == pytest.approx(expected, abs=1e-12)


def test_ties_count_half():
    # The six points of a hand-made example: 0.1 0.4 0.4 good, 0.35 0.4 0.9 defective.
    scores = np.array([[0.1, 0.4, 0.4, 0.35, 0.4, 0.9]])
    assert pixel_auroc([np.array([[0, 0, 0, 255, 255, 255]])], [scores]) == pytest.approx(2 / 3)


def test_pixels_outside_the_crop_are_left_out(maps):
    masks, heatmaps = maps
    inner = pixel_auroc([m[2:] for m in masks], [h[2:] for h in heatmaps])
    for heatmap in heatmaps:
        heatmap[:2] = np.nan
    assert pixel_auroc(masks, heatmaps) == inner


def test_undefined_and_unusable(maps):
    masks, heatmaps = maps
    assert np.isnan(pixel_auroc([np.zeros((2, 2))], [np.ones((2, 2))]))
    with pytest.raises(ValueError, match="no masks"):
        pixel_auroc([], [])
    with pytest.raises(ValueError, match=r"mask 1 has shape \(9, 7\), its heat map \(3, 7\)"):
        pixel_auroc(masks[:2], [heatmaps[0], heatmaps[1][:3]])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        pixel_auroc(masks, heatmaps[:-1])


class TestDiscriminability:
    def test_hand_check(self):
        assert discriminability([1, 2, 3], [5, 7, 9, 11]) == pytest.approx(3.564531154716027)

    def test_spreads_of_zero(self):
        assert discriminability([1, 1], [2, 2]) == np.inf
        assert np.isnan(discriminability([1, 1], [1]))

    def test_empty(self):
        with pytest.raises(ValueError, match="empty"):
            discriminability([], [1.0])
