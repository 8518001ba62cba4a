"""Pictures of pixel curves: what they show, and where their masks and heat maps come from."""

import numpy as np
import pytest
from conftest import make_detector
from PIL import Image
from pixel_maps import random_maps

from skad.metrics import pixel_auroc

pytest.importorskip("matplotlib")
from skad.inspection import PixelPrecisionRecallDisplay, PixelRocDisplay
from skad.inspection._pixel_curves import count_pixels, thin


def test_images_may_differ_in_size_and_masks_be_files(tmp_path):
    masks, maps = random_maps(2)
    maps = np.nan_to_num(maps)
    Image.fromarray(masks[1]).save(tmp_path / "mask.png")
    small = np.full((8, 9), 0.1)
    counts = count_pixels([masks[0], tmp_path / "mask.png", None], [*maps, small])
    # Whatever is not zero is defective, in arrays and in files.
    assert counts.n_defective == np.sum(masks[0] > 0) + np.sum(masks[1] > 0)
    assert counts.n_good + counts.n_defective == maps.size + small.size


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
    det = make_detector(image_size=64, smoothing=2).fit(good)
    X, mask = np.concatenate([good, defective]), np.zeros((40, 48))
    mask[8:20, 30:42] = 1
    masks = [None] * len(good) + [mask] * len(defective)
    maps = det.predict_heatmap(X)
    truth = [np.zeros_like(mask)] * len(good) + [mask] * len(defective)
    display = PixelRocDisplay.from_estimator(det, X, masks)
    assert display.name == "PatchCoreDetector"
    assert display.roc_auc == pytest.approx(pixel_auroc(truth, maps), abs=1e-4)
    assert PixelPrecisionRecallDisplay.from_estimator(det, X, masks).average_precision > 0.3


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
        ([None], [np.full((2, 2), np.nan)], "heat map 0 holds only NaN"),
        (np.eye(2), np.eye(2), r"heat map 0 has shape \(2,\) .*a single one as \[heatmap\]"),
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
