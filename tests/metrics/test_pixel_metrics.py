"""Exact pixel metrics against scikit-learn, their definitions, and hand-made numbers."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from brute_force import literal_aupro
from scipy.ndimage import gaussian_filter, label
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from skad.metrics import aupro, aupro_per_image, pixel_auroc, pixel_average_precision

METRICS = [pixel_auroc, pixel_average_precision, aupro, aupro_per_image]
LIMITS = [0.05, 0.3, 1.0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("n_values", [1, 3, 20, 10**6])
def test_are_the_definitions(n_values, dtype):
    """From nothing but ties to none at all; images differ in size, one is good, some pixels are NaN."""
    rng = np.random.default_rng(n_values)
    shapes = [(12, 10), (9, 7), (1, 30), (12, 10)]
    heatmaps = [(rng.integers(0, n_values, shape) / n_values).astype(dtype) for shape in shapes]
    masks = [(rng.random(shape) < 0.15).astype(int) for shape in shapes[:3]]
    masks.append(np.zeros(shapes[3], dtype=int))
    heatmaps[0][:2] = np.nan
    seen = [~np.isnan(heatmap) for heatmap in heatmaps]
    truth, values = (
        np.concatenate([x[s] for x, s in zip(arrays, seen, strict=True)])
        for arrays in (masks, heatmaps)
    )
    for metric, expected in (
        (pixel_auroc, roc_auc_score(truth, values)),
        (pixel_average_precision, average_precision_score(truth, values)),
        *((partial(aupro, limit=limit), literal_aupro(masks, heatmaps, limit)) for limit in LIMITS),
    ):
        assert metric(masks, heatmaps) == pytest.approx(expected, abs=1e-12)


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    heatmaps = [rng.integers(0, 20, size=(9, 7)) / 10 for _ in range(5)]
    masks = [rng.random((9, 7)) < 0.2 for _ in range(4)] + [np.zeros((9, 7))]
    return masks, heatmaps


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
    for metric in METRICS:
        assert np.isnan(metric([np.zeros((2, 2))], [np.ones((2, 2))]))
        assert np.isnan(metric([np.ones((2, 2))], [np.eye(2)]))
    with pytest.raises(ValueError, match="no masks"):
        pixel_auroc([], [])
    with pytest.raises(ValueError, match=r"mask 1 has shape \(9, 7\), its heat map \(3, 7\)"):
        pixel_auroc(masks[:2], [heatmaps[0], heatmaps[1][:3]])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        pixel_auroc(masks, heatmaps[:-1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("form", [np.asarray, torch.tensor, np.ndarray.tolist, pd.DataFrame])
def test_one_pair_that_is_not_in_a_list(metric, form):
    """Its rows would pass for images of one dimension."""
    rng = np.random.default_rng(0)
    mask, heatmap = (rng.random((9, 7)) > 0.8).astype(float), rng.random((9, 7))
    for masks, heatmaps in (
        (form(mask), form(heatmap)),
        ([mask], heatmap),
        (mask, [heatmap]),
        ([mask[..., None]], [heatmap[..., None]]),
    ):
        with pytest.raises(ValueError, match=r"both must be \(H, W\).*as \[mask\], \[heatmap\]"):
            metric(masks, heatmaps)
    assert 0 <= metric([mask], [heatmap]) <= 1


@pytest.mark.parametrize("metric", METRICS)
def test_columns_of_a_table(maps, metric):
    """One array per row, under whatever index."""
    masks, heatmaps = maps
    index = range(50, 50 + len(masks))
    columns = pd.DataFrame({"mask": list(masks), "map": list(heatmaps)}, index=index)
    assert metric(columns["mask"], columns["map"]) == metric(masks, heatmaps)
    assert metric(np.stack(masks), np.stack(heatmaps)) == metric(masks, heatmaps)


@pytest.mark.parametrize("metric", METRICS)
def test_none_is_the_mask_of_a_good_image(maps, metric):
    masks, heatmaps = maps
    assert not masks[-1].any()
    assert metric([*masks[:-1], None], heatmaps) == metric(masks, heatmaps)


class TestAUPRO:
    def test_every_region_counts_the_same(self):
        mask, heatmap = np.zeros((20, 20)), np.zeros((20, 20))
        mask[2:12, 2:12] = mask[15, 15] = 255
        heatmap[15, 15] = 1.0  # the single pixel is found, the hundred are not
        heatmap[2:12, 2:12] = -1
        assert aupro([mask], [heatmap], 1.0) == pytest.approx(0.5)

    def test_perfect_and_useless(self):
        mask = np.zeros((6, 6))
        mask[1, 1] = mask[4, 4] = 1
        assert aupro([mask], [mask]) == 1.0
        assert aupro([mask], [-mask]) == 0.0
        assert aupro([mask], [np.zeros((6, 6))], 1.0) == pytest.approx(0.5)

    def test_pixels_outside_the_crop_are_left_out(self):
        rng = np.random.default_rng(0)
        heatmap, mask = rng.random((8, 8)), np.zeros((8, 8))
        mask[3:6, 3:6] = 1
        inner = aupro([mask[1:]], [heatmap[1:]])
        mask[0, 0] = 1  # a region that nobody looked at
        heatmap[0] = np.nan
        assert aupro([mask], [heatmap]) == inner

    def test_undefined_and_unusable(self):
        assert np.isnan(aupro([np.zeros((3, 3))], [np.ones((3, 3))]))
        assert np.isnan(aupro([np.ones((3, 3))], [np.ones((3, 3))]))
        with pytest.raises(ValueError, match="limit=0"):
            aupro([np.ones((3, 3))], [np.ones((3, 3))], limit=0)
        with pytest.raises(ValueError, match="mask 0 has shape"):
            aupro([np.ones((3, 3))], [np.ones((3, 4))])


class TestAUPROPerImage:
    def literal(self, mask, heatmap):
        """The loop of the published code for one image."""
        numbers, n = label(mask, structure=np.ones((3, 3)))
        points = []
        low, high = heatmap.min(), heatmap.max()
        for threshold in np.arange(low, high, (high - low) / 200):
            called = heatmap > threshold
            overlap = np.mean([called[numbers == i].mean() for i in range(1, n + 1)])
            points.append((called[mask == 0].mean(), overlap))
        rates, overlaps = np.array([p for p in points if p[0] < 0.3]).T
        return auc(rates / rates.max(), overlaps)

    @pytest.mark.parametrize("whole_numbers", [False, True])
    def test_is_the_loop_of_the_code(self, whole_numbers):
        """Also where values lie at thresholds, and a rate at the limit: 60 of 200 good pixels."""
        rng = np.random.default_rng(0)
        heatmaps = [rng.random((16, 16)) for _ in range(3)]
        if whole_numbers:
            heatmaps = [
                rng.permutation(np.append(np.arange(201.0), [100.0] * 55)) for _ in range(3)
            ]
        heatmaps = [heatmap.reshape(16, 16) for heatmap in heatmaps]
        masks = [rng.permutation(np.arange(256) < 56).reshape(16, 16) * 1 for _ in range(2)]
        masks.append(np.zeros((16, 16), dtype=int))  # good images do not count
        expected = np.mean([self.literal(masks[i], heatmaps[i]) for i in range(2)])
        assert aupro_per_image(masks, heatmaps) == pytest.approx(expected, abs=1e-12)

    def test_undefined(self):
        mask = np.zeros((6, 6))
        mask[2, 2] = 1
        assert np.isnan(aupro_per_image([mask], [mask]))  # no false positive to divide by
        assert np.isnan(aupro_per_image([mask], [np.ones((6, 6))]))
        assert np.isnan(aupro_per_image([np.zeros((6, 6))], [mask]))

    def test_an_image_whose_defects_are_outside_the_crop_does_not_count(self):
        rng = np.random.default_rng(0)
        mask, heatmap, cropped = np.eye(8), rng.random((8, 8)), rng.random((8, 8))
        cropped[np.eye(8) == 1] = np.nan
        expected = aupro_per_image([mask], [heatmap])
        assert aupro_per_image([mask, mask], [heatmap, cropped]) == expected


@pytest.mark.parametrize(
    ("seed", "theirs"),
    [(0, 0.653099000453949), (2, 0.5124964118003845), (4, 0.6669667959213257)],
)
def test_aupro_is_what_anomalib_computes(seed, theirs):
    """Values of anomalib 2.7.0 (fpr_limit=0.3) on the same masks and maps; it works in float32."""
    rng = np.random.default_rng(seed)
    masks, maps = [], []
    for i in range(6):
        field = gaussian_filter(rng.normal(size=(96, 96)), 5)
        mask = (field > 1.6 * field.std()) if i % 3 else np.zeros((96, 96), dtype=bool)
        noise = gaussian_filter(rng.normal(size=(96, 96)), 2)
        maps.append((noise * 3 + mask * rng.random()).astype(np.float32))
        masks.append(mask)
    assert aupro(masks, maps) == pytest.approx(theirs, abs=1e-6)
