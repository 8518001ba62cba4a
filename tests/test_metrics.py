"""Metrics against scikit-learn and hand-made numbers."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_detector
from scipy.ndimage import gaussian_filter, label
from sklearn.metrics import auc, average_precision_score, f1_score, roc_auc_score

from skad.metrics import (
    aupro,
    aupro_per_image,
    average_precision,
    discriminability,
    f1_optimal_threshold,
    image_auroc,
    pixel_auroc,
    threshold_at_full_recall,
    threshold_report,
)


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


@pytest.mark.parametrize("metric", [pixel_auroc, aupro, aupro_per_image])
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


@pytest.mark.parametrize("metric", [pixel_auroc, aupro, aupro_per_image])
def test_columns_of_a_table(maps, metric):
    """One array per row, under whatever index."""
    masks, heatmaps = maps
    index = range(50, 50 + len(masks))
    columns = pd.DataFrame({"mask": list(masks), "map": list(heatmaps)}, index=index)
    assert metric(columns["mask"], columns["map"]) == metric(masks, heatmaps)
    assert metric(np.stack(masks), np.stack(heatmaps)) == metric(masks, heatmaps)


class TestDiscriminability:
    def test_hand_check(self):
        assert discriminability([1, 2, 3], [5, 7, 9, 11]) == pytest.approx(3.564531154716027)

    def test_spreads_of_zero(self):
        assert discriminability([1, 1], [2, 2]) == np.inf
        assert np.isnan(discriminability([1, 1], [1]))

    def test_empty(self):
        with pytest.raises(ValueError, match="empty"):
            discriminability([], [1.0])


def literal_aupro(masks, heatmaps, limit):
    """Threshold by threshold, as the definition reads."""
    background = np.concatenate([h[m == 0] for m, h in zip(masks, heatmaps, strict=True)])
    regions = []
    for mask, heatmap in zip(masks, heatmaps, strict=True):
        numbers, n = label(mask, structure=np.ones((3, 3)))
        regions += [heatmap[numbers == i] for i in range(1, n + 1)]
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([np.ravel(h) for h in heatmaps]))[::-1]:
        rates.append((background >= threshold).mean())
        overlaps.append(np.mean([(region >= threshold).mean() for region in regions]))
    end = np.interp(limit, rates, overlaps)
    kept = np.array(rates) < limit
    x, y = [*np.array(rates)[kept], limit], [*np.array(overlaps)[kept], end]
    return np.sum(np.diff(x) * (np.array(y)[1:] + np.array(y)[:-1]) / 2) / limit


class TestAUPRO:
    @pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
    @pytest.mark.parametrize("n_values", [3, 20, 10**6])
    def test_is_the_definition(self, limit, n_values):
        rng = np.random.default_rng(n_values)
        heatmaps = [rng.integers(0, n_values, size=(12, 10)) / n_values for _ in range(4)]
        masks = [(rng.random((12, 10)) < 0.1).astype(int) for _ in range(3)]
        masks.append(np.zeros((12, 10), dtype=int))
        expected = literal_aupro(masks, heatmaps, limit)
        assert aupro(masks, heatmaps, limit) == pytest.approx(expected, abs=1e-12)

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

    def test_is_the_loop_of_the_code(self):
        rng = np.random.default_rng(0)
        heatmaps = [rng.random((16, 16)) for _ in range(3)]
        masks = [(rng.random((16, 16)) < 0.1).astype(int) for _ in range(2)]
        masks.append(np.zeros((16, 16), dtype=int))  # good images do not count
        expected = np.mean([self.literal(masks[i], heatmaps[i]) for i in range(2)])
        assert aupro_per_image(masks, heatmaps) == pytest.approx(expected, abs=1e-12)

    def test_undefined(self):
        mask = np.zeros((6, 6))
        mask[2, 2] = 1
        assert np.isnan(aupro_per_image([mask], [mask]))  # no false positive to divide by
        assert np.isnan(aupro_per_image([mask], [np.ones((6, 6))]))
        assert np.isnan(aupro_per_image([np.zeros((6, 6))], [mask]))


@pytest.fixture
def labelled():
    """Labels and scores with ties."""
    rng = np.random.default_rng(0)
    y = np.where(rng.random(60) < 0.4, -1, 1)
    return y, rng.integers(0, 25, 60) + 4.0 * y


class TestImageMetrics:
    def test_are_those_of_scikit_learn(self, labelled):
        y, scores = labelled
        assert image_auroc(y, scores) == roc_auc_score(y, scores)
        # Defects are what is to be found.
        assert average_precision(y, scores) == average_precision_score(y == -1, -scores)
        assert average_precision(y, scores) != average_precision_score(y, scores)

    def test_extremes(self):
        assert image_auroc([1, 1, -1], [3.0, 2.0, 1.0]) == average_precision([1, -1], [2, 1]) == 1
        assert image_auroc([1, -1], [1.0, 1.0]) == 0.5

    @pytest.mark.parametrize(
        "metric",
        [image_auroc, average_precision, f1_optimal_threshold, threshold_at_full_recall],
    )
    def test_unusable(self, metric):
        for y, scores, message in (
            ([1, 1], [0.0, 1.0], "needed, both"),
            ([0, 1], [0.0, 1.0], r"\+1 \(good\)"),
            ([1, -1], [0.0, 1.0, 2.0], "2 labels for 3 images"),
            ([1, -1], [0.0, np.nan], "NaN, first at 1"),
        ):
            with pytest.raises(ValueError, match=message):
                metric(y, scores)


class TestThresholds:
    def test_counts(self, labelled):
        y, scores = labelled
        report = threshold_report(y, scores, 7.0)
        called = scores < 7.0
        assert (scores == 7.0).any()  # which are good
        assert report.threshold == 7.0
        assert report.f1 == pytest.approx(f1_score(y == -1, called))
        assert report.accuracy == pytest.approx(np.mean(called == (y == -1)))
        assert report.false_alarm_rate == pytest.approx(called[y == 1].mean())
        assert report.recall == pytest.approx(called[y == -1].mean())
        assert report.false_positives == (called & (y == 1)).sum()
        assert report.false_negatives == (~called & (y == -1)).sum()

    def test_nothing_called(self, labelled):
        report = threshold_report(*labelled, -100.0)
        assert (report.f1, report.recall, report.false_alarm_rate) == (0.0, 0.0, 0.0)

    @pytest.mark.parametrize("at", [None, 0, 7, 13, 15])
    def test_of_a_detector(self, good, defective, at):
        """The count at ``offset_`` is what ``predict`` says, also where images lie at it."""
        X, y = np.concatenate([good, defective]), np.repeat([1, -1], [len(good), len(defective)])
        detector = make_detector().fit(good)
        scores = detector.score_samples(X)
        called = detector.predict(X) == -1
        if at is not None:
            detector.offset_ = float(np.sort(scores)[at])
            called = detector.predict(X) == -1
            assert called.sum() == at
        report = threshold_report(y, scores, detector.offset_)
        assert report.false_positives == called[y == 1].sum()
        assert report.recall == called[y == -1].mean()
        assert report.accuracy == pytest.approx(np.mean(called == (y == -1)))

    def test_the_best_f1_of_all(self, labelled):
        y, scores = labelled
        best = f1_optimal_threshold(y, scores)
        tried = {t: f1_score(y == -1, scores <= t) for t in np.unique(scores)}
        assert best.f1 == pytest.approx(max(tried.values()))
        assert best == threshold_report(y, scores, best.threshold)
        highest_called = scores[scores < best.threshold].max()
        assert highest_called == max(t for t in tried if tried[t] == pytest.approx(best.f1))

    def test_full_recall(self, labelled):
        y, scores = labelled
        full = threshold_at_full_recall(y, scores)
        assert full.recall == 1
        assert full.false_negatives == 0
        # The next lower threshold that tells images apart lets a defect pass.
        lower = threshold_report(y, scores, scores[scores < full.threshold].max())
        assert lower.recall < 1

    @pytest.mark.parametrize(
        "scores",
        [
            [0.1, 0.2, 0.6, 0.5, 0.9],
            [1.0, 2.0, 3.0, 0.0, np.nextafter(0.0, 1)],  # neighbours
            [1.0, 1.0, 1.0, 1.0, 1.0],
            [1e308, 1e308, -1e308, -1e308, -1e308],
            [np.inf, 1.0, 2.0, -np.inf, 0.0],
            [-1.0, -2.0, -3.0, 4.0, 5.0],  # the defective images lie highest
            [5e-324, 1e-323, 0.0, 0.0, 5e-324],
        ],
    )
    @pytest.mark.parametrize("find", [f1_optimal_threshold, threshold_at_full_recall])
    def test_thresholds_lie_between_scores(self, find, scores):
        """Also where the next score is a neighbour, infinite, or absent."""
        y, scores = np.array([1, 1, 1, -1, -1]), np.array(scores)
        found = find(y, scores)
        assert not np.isnan(found.threshold)
        assert found == threshold_report(y, scores, found.threshold)
        below = scores < found.threshold
        reachable = {t: scores <= t for t in scores}
        assert any((below == called).all() for called in reachable.values())
        if find is threshold_at_full_recall:
            fewest = scores <= scores[y == -1].max()
            np.testing.assert_array_equal(below, fewest)
        else:
            tried = [f1_score(y == -1, called) for called in reachable.values()]
            assert found.f1 == pytest.approx(max(tried))


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


@pytest.mark.parametrize(
    "threshold", [None, "2.0", [2.0], np.array([1.0, 2.0]), True, 1j, object()]
)
def test_a_threshold_that_is_no_number(threshold):
    with pytest.raises(TypeError, match=r"threshold must be a number, such as det\.offset_; got"):
        threshold_report([1, 1, -1], [3.0, 2.0, 1.0], threshold)


@pytest.mark.parametrize("threshold", [float("nan"), np.float32("nan"), np.array(np.nan)])
def test_a_threshold_that_is_nan(threshold):
    with pytest.raises(ValueError, match="threshold is NaN"):
        threshold_report([1, 1, -1], [3.0, 2.0, 1.0], threshold)


@pytest.mark.parametrize("threshold", [2, np.float32(2), np.array(2.0), np.uint8(2), float("inf")])
def test_numbers_of_any_kind_are_thresholds(threshold):
    report = threshold_report([1, 1, -1], [3.0, 2.0, 1.0], threshold)
    assert type(report.threshold) is float
    assert report.threshold == threshold
    assert report.false_positives == (2 if threshold == float("inf") else 0)
