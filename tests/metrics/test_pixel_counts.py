"""Counts in bins against the exact metrics, and what they promise: streams, parts, memory, bounds."""

import pickle
import weakref

import numpy as np
import pytest
from pixel_maps import random_maps
from sklearn.metrics import precision_recall_curve, roc_curve

from skad.metrics import PixelCounts, aupro, pixel_auroc, pixel_average_precision


@pytest.mark.parametrize("bin_width", [0.5, 0.01, 5e-4])
@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (1e-6, 0.0), (1.0, 50.0), (1e5, -3e5), (1e-40, 0.0)]
)
def test_metrics_agree_with_the_exact_ones(scale, shift, bin_width):
    """At every scale, and never further off than the bound."""
    masks, maps = random_maps(n=3, shape=(32, 50), scale=scale, shift=shift)
    counts = PixelCounts(bin_width).update(masks, maps)
    for limit in (0.05, 0.3, 1.0):
        bound = counts.max_error(limit)
        for found, exact, error in (
            (counts.auroc(), pixel_auroc(masks, maps), bound.auroc),
            (
                counts.average_precision(),
                pixel_average_precision(masks, maps),
                bound.average_precision,
            ),
            (counts.aupro(limit), aupro(masks, maps, limit), bound.aupro),
        ):
            assert abs(found - exact) <= error + 1e-12
    assert counts.prevalence() == pytest.approx(np.mean(masks[:, :, :-3] > 0))


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-6, 0.0), (1.0, 50.0), (1e5, -3e5)])
def test_four_digits_at_the_default(scale, shift):
    masks, maps = random_maps(scale=scale, shift=shift)
    counts = PixelCounts().update(masks, maps)
    assert counts.auroc() == pytest.approx(pixel_auroc(masks, maps), abs=2e-4)
    expected = pixel_average_precision(masks, maps)
    assert counts.average_precision() == pytest.approx(expected, abs=2e-3)
    for limit in (0.05, 0.3, 1.0):
        assert counts.aupro(limit) == pytest.approx(aupro(masks, maps, limit), abs=5e-4)


def test_narrower_bins_narrow_the_bound():
    masks, maps = random_maps(n=3)
    bounds = [PixelCounts(width).update(masks, maps).max_error() for width in (0.1, 0.01, 5e-4)]
    assert (np.diff(bounds, axis=0) < 0).all()
    assert max(bounds[2]) < 0.01


def test_values_far_apart_give_the_exact_curves():
    """Where no two values share a bin, all is exact: ties, and the two zeros, which are one value."""
    values = np.array([[-4.0, -1.0, -0.0, 0.0, 1.0, 1.0, 2.0, 8.0]])
    mask = np.array([[0, 1, 0, 1, 0, 1, 1, 0]])
    counts = PixelCounts().update([mask], [values])
    assert counts.auroc() == pixel_auroc([mask], [values])
    assert counts.average_precision() == pixel_average_precision([mask], [values])
    assert counts.aupro(0.3) == pytest.approx(aupro([mask], [values], 0.3))
    curves = counts.curves()
    precision, recall, _ = precision_recall_curve(mask[0], values[0])
    np.testing.assert_allclose(curves.precision, precision[::-1])
    np.testing.assert_allclose(curves.recall, recall[::-1])
    fpr, _, _ = roc_curve(mask[0], values[0], drop_intermediate=False)
    np.testing.assert_allclose(curves.false_positive_rate, fpr)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-6, -1e-6), (1.0, 50.0), (1.0, -50.0)])
def test_thresholds_give_what_the_curves_say(scale, shift):
    masks, maps = random_maps(n=2, scale=scale, shift=shift)
    maps[0, 0, 0], maps[0, 0, 1] = np.inf, -np.inf
    curves = PixelCounts(0.1).update(masks, maps).curves()
    assert len({len(curve) for curve in curves}) == 1
    assert (curves.thresholds[1:] <= curves.thresholds[:-1]).all()
    good, defective = maps[(masks == 0) & ~np.isnan(maps)], maps[(masks > 0) & ~np.isnan(maps)]
    # The first threshold, infinity, stands for none: not even infinite anomalies are called.
    for i, threshold in list(enumerate(curves.thresholds))[1:]:
        assert curves.false_positive_rate[i] == np.mean(good >= threshold)
        assert curves.recall[i] == np.mean(defective >= threshold)


def test_parts_are_merged():
    """Counts of several processes, pickled, are those of one."""
    masks, maps = random_maps()
    whole, parts = PixelCounts(0.01).update(masks, maps), PixelCounts(0.01)
    for i in range(0, 6, 2):
        part = PixelCounts(0.01).update(masks[i : i + 2], maps[i : i + 2])
        assert parts.merge(pickle.loads(pickle.dumps(part))) is parts
    assert repr(parts) == repr(whole)
    assert (parts.n_good, parts.n_defective, parts.n_regions) == (10687, 593, 11)
    assert parts.auroc() == whole.auroc()
    assert parts.aupro() == pytest.approx(whole.aupro(), abs=1e-14)
    with pytest.raises(ValueError, match=r"bin_width=0\.01 and 0\.0005 cannot be merged"):
        parts.merge(PixelCounts())


def test_a_stream_of_maps_is_never_held():
    """Few of many maps are alive at a time, and the counts do not grow."""
    given = []

    class Map(np.ndarray):
        pass

    def stream():
        for i in range(12):
            heatmap = np.random.default_rng(i).normal(size=(20, 20)).view(Map)
            given.append(weakref.ref(heatmap))
            assert sum(reference() is not None for reference in given) <= 3
            yield heatmap

    counts = PixelCounts()
    before = len(pickle.dumps(counts))
    counts.update((np.eye(20) for _ in range(12)), stream())
    assert counts.n_good == 12 * 380
    assert before == pytest.approx(len(pickle.dumps(counts)), abs=100)
    assert before < 30e6


def test_counts_without_both_kinds():
    counts = PixelCounts()
    assert np.isnan(counts.prevalence())
    counts.update([np.zeros((2, 2))], [np.eye(2)])
    assert counts.prevalence() == 0
    figures = [counts.auroc(), counts.aupro(), counts.average_precision(), *counts.max_error()]
    assert np.isnan(figures).all()
    with pytest.raises(ValueError, match=r"4 good and 0 defective pixels.*curves need"):
        counts.curves()


def test_what_does_not_do():
    counts = PixelCounts()
    for width in (0, 1, -1e-3, float("nan")):
        with pytest.raises(ValueError, match="bin_width"):
            PixelCounts(width)
    for compute in (counts.aupro, counts.max_error):
        with pytest.raises(ValueError, match=r"limit=1\.5"):
            compute(1.5)
    with pytest.raises(ValueError, match=r"mask 1 has shape \(2, 3\)"):
        counts.update([np.eye(2), np.ones((2, 3))], [np.eye(2), np.eye(2)])
    assert counts.n_good == 2  # the pair before was counted
    with pytest.raises(ValueError, match="no masks"):
        counts.update([], [])
