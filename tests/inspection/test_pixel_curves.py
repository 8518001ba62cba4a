"""Curves of pixels against scikit-learn's own and the exact metrics."""

import weakref

import numpy as np
import pytest
from conftest import make_detector
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from skad.metrics import aupro, pixel_auroc

pytest.importorskip("matplotlib")
from skad.inspection import PixelPrecisionRecallDisplay, PixelRocDisplay
from skad.inspection._pixel_counts import PixelCounts, thin
from skad.inspection._pixel_curves import count_pixels


def random_maps(n=6, shape=(40, 50), seed=0, scale=1.0, shift=0.0):
    """Maps in which defects stand out a little, with NaN at the rim; two regions an image."""
    rng = np.random.default_rng(seed)
    masks, maps = np.zeros((n, *shape), dtype=np.uint8), rng.normal(size=(n, *shape))
    masks[:, 5:12, 5:9], masks[1:, 25:30, 30:48] = 1, 255
    maps = scale * (maps + 1.2 * (masks > 0)) + shift
    maps[:, :, -3:] = np.nan
    return masks, maps.astype(np.float32)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-6, 0.0), (1.0, 50.0), (1e5, -3e5)])
def test_areas_agree_with_the_exact_ones(scale, shift):
    masks, maps = random_maps(scale=scale, shift=shift)
    counts = count_pixels(masks, maps)
    seen = ~np.isnan(maps)
    truth, values = masks[seen] > 0, maps[seen]
    assert counts.auroc() == pytest.approx(pixel_auroc(masks, maps), abs=2e-4)
    assert counts.auroc() == pytest.approx(roc_auc_score(truth, values), abs=2e-4)
    assert counts.average_precision() == pytest.approx(
        average_precision_score(truth, values), abs=2e-3
    )
    for limit in (0.05, 0.3, 1.0):
        assert counts.aupro(limit) == pytest.approx(aupro(masks, maps, limit), abs=5e-4)
    assert counts.prevalence() == pytest.approx(truth.mean())


def test_values_far_apart_give_the_exact_curve():
    """Where no two values share a bin, all is exact, ties included."""
    values = np.array([[-4.0, -1.0, -0.0, 0.0, 1.0, 1.0, 2.0, 8.0]])
    mask = np.array([[0, 1, 0, 1, 0, 1, 1, 0]])
    counts = count_pixels([mask], [values])
    assert counts.auroc() == roc_auc_score(mask[0], values[0])
    assert counts.aupro(0.3) == pytest.approx(aupro([mask], [values], 0.3))
    precision, recall, _ = precision_recall_curve(mask[0], values[0], drop_intermediate=False)
    curves = counts.curves()
    np.testing.assert_allclose(curves.precision, precision[::-1])
    np.testing.assert_allclose(curves.recall, recall[::-1])


def test_images_may_differ_in_size_and_masks_be_files(tmp_path):
    masks, maps = random_maps(2)
    maps = np.nan_to_num(maps)
    Image.fromarray(masks[1]).save(tmp_path / "mask.png")
    small = np.full((8, 9), 0.1)
    counts = count_pixels([masks[0], tmp_path / "mask.png", None], [*maps, small])
    # Whatever is not zero is defective, in arrays and in files.
    assert counts.defective.sum() == np.sum(masks[0] > 0) + np.sum(masks[1] > 0)
    assert counts.good.sum() + counts.defective.sum() == maps.size + small.size


def test_pictures_hold_what_was_computed():
    masks, maps = random_maps()
    display = PixelRocDisplay.from_predictions(masks, maps, name="a")
    assert display.roc_auc == count_pixels(masks, maps).auroc()
    np.testing.assert_array_equal(display.line_.get_xdata(), display.fpr)
    assert list(display.chance_level_.get_ydata()) == [0, 1]
    assert [t.get_text() for t in display.ax_.get_legend().get_texts()] == [
        f"a (AUC = {display.roc_auc:.2f})",
        "Chance level (AUC = 0.5)",
    ]
    display = PixelPrecisionRecallDisplay.from_predictions(masks, maps)
    assert display.chance_level_.get_ydata()[0] == display.prevalence
    assert display.recall[-1] == 0.0
    assert display.recall[0] == 1.0
    assert display.precision[0] == pytest.approx(display.prevalence)


def test_two_curves_on_the_same_axes():
    masks, maps = random_maps()
    first = PixelRocDisplay.from_predictions(masks, maps, name="a")
    second = PixelRocDisplay.from_predictions(masks, -maps, name="b", ax=first.ax_)
    assert second.roc_auc == pytest.approx(1 - first.roc_auc, abs=1e-4)
    assert second.figure_ is first.figure_
    again = second.plot(name="c", plot_chance_level=False)
    assert again.chance_level_ is None
    assert again.figure_ is not first.figure_


def test_from_estimator(good, defective):
    det = make_detector(image_size=96, smoothing=2).fit(good)
    X, mask = np.concatenate([good, defective]), np.zeros((40, 48))
    mask[8:20, 30:42] = 1
    masks = [None] * len(good) + [mask] * len(defective)
    maps = det.predict_heatmap(X)
    truth = [np.zeros_like(mask)] * len(good) + [mask] * len(defective)
    display = PixelRocDisplay.from_estimator(det, X, masks)
    assert display.name == "PatchCoreDetector"
    assert display.roc_auc == pytest.approx(pixel_auroc(truth, maps), abs=1e-4)
    assert PixelPrecisionRecallDisplay.from_estimator(det, X, masks).average_precision > 0.3


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

    mask = np.eye(20)
    counts = count_pixels((mask for _ in range(12)), stream())
    assert counts.good.sum() == 12 * 380
    assert counts.good.nbytes + counts.defective.nbytes + counts.regions.nbytes < 30e6


def test_curves_are_thinned_for_the_eye():
    x = np.linspace(0, 1, 200_000)
    chosen = thin(x, x**2)
    assert len(chosen) < 5000
    assert chosen[0] == 0
    assert chosen[-1] == len(x) - 1
    drawn = np.interp(x, x[chosen], x[chosen] ** 2)
    assert np.abs(drawn - x**2).max() < 1e-3


@pytest.mark.parametrize(
    ("masks", "maps", "message"),
    [
        ([np.zeros((2, 2))], [np.eye(2)], "mark no pixel as defective"),
        ([np.ones((2, 2))], [np.eye(2)], "mark all pixels as defective"),
        ([np.ones((2, 3))], [np.eye(2)], r"mask 0 has shape \(2, 3\), its heat map \(2, 2\)"),
        ([None], [np.full((2, 2), np.nan)], "heat map 0 must hold more than NaN"),
        (np.eye(2), np.eye(2), r"heat map 0 must be of shape \(H, W\).*passed as \[heatmap\]"),
        ([None, None], [np.eye(2)], "argument"),
    ],
)
def test_what_has_no_curve(masks, maps, message):
    with pytest.raises(ValueError, match=message):
        PixelRocDisplay.from_predictions(masks, maps)


def test_masks_must_match_the_images(good):
    det = make_detector().fit(good)
    with pytest.raises(ValueError, match="1 masks for 12 images"):
        PixelRocDisplay.from_estimator(det, good, [None])


def test_counts_without_a_kind_of_pixels_have_no_area():
    counts = PixelCounts()
    counts.add(np.zeros((2, 2)), np.eye(2))
    assert np.isnan([counts.auroc(), counts.aupro(), counts.average_precision()]).all()
