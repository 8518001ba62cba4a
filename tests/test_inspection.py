"""Pictures: what is drawn, not how it looks."""

import numpy as np
import pytest
from conftest import make_detector

pytest.importorskip("matplotlib")
from skad.inspection import HeatmapDisplay


def test_one_row_an_image(good, defective, tmp_path):
    det = make_detector(image_size=96, smoothing=2).fit(good)
    mask = np.zeros((40, 48))
    mask[8:20, 30:42] = 1
    X = [defective[0], good[0]]
    display = HeatmapDisplay.from_estimator(det, X, masks=[mask, None])
    assert display.axes_.shape == (2, 3)
    assert display.axes_[0, 0].get_title().startswith("defective")
    assert display.axes_[1, 0].get_title().startswith("good")
    # The defective image is outlined twice: truth and finding; the good one not at all.
    assert len(display.axes_[0, 2].collections) == 2
    assert len(display.axes_[1, 2].collections) == 0
    display.figure_.savefig(tmp_path / "display.png")
    assert (tmp_path / "display.png").stat().st_size > 1000


def test_pixels_outside_the_crop_do_no_harm(good, defective):
    det = make_detector(geometry="crop", image_size=32, resize=36).fit(good)
    display = HeatmapDisplay.from_estimator(det, defective[:1])
    low, high = display.axes_[0, 1].images[0].get_clim()
    assert np.isfinite([low, high]).all()


def test_from_predictions(good):
    maps = np.zeros((2, 40, 48))
    display = HeatmapDisplay.from_predictions(good[:2], maps, threshold=1.0, titles=["a", "b"])
    assert [axes[0].get_title() for axes in display.axes_] == ["a", "b"]
