"""Pictures of heat maps over their images."""

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_detector
from PIL import Image

import skad
from skad import HeatmapOverlay


def overlay(usual, threshold):
    return HeatmapOverlay(
        SimpleNamespace(heatmap_threshold_=threshold, _calibration_peaks=np.array([usual]))
    )


def test_a_picture_shows_where_it_is_anomalous():
    grey = np.full((40, 60, 3), 100, np.uint8)
    heatmap = np.full((40, 60), 1.0, np.float32)
    heatmap[10:20, 30:40], heatmap[:, :5] = 5.0, np.nan
    square = np.array([[10, 30], [10, 40], [20, 40], [20, 30]])
    region = SimpleNamespace(contour=[square])
    picture = np.asarray(overlay(1.0, 2.0).draw(grey, heatmap, [region]))
    assert (picture[30, 50] == 100).all()
    assert (picture[15, 2] == 100).all()
    assert picture[15, 35].tolist() != [100] * 3
    # Along the edges of pixels: a line of one pixel lies on one side of them.
    green = np.argwhere((picture == [0, 255, 0]).all(axis=2))
    np.testing.assert_allclose(green.min(axis=0), [9.5, 29.5], atol=0.5)
    np.testing.assert_allclose(green.max(axis=0), [19.5, 39.5], atol=0.5)


def test_one_pixel_is_seen_in_a_picture_that_is_reduced():
    heatmap = np.zeros((30, 5001), np.float32)
    heatmap[7, 4321] = 9.0
    picture = np.asarray(overlay(0.0, 1.0).draw(np.zeros((30, 5001, 3), np.float32), heatmap))
    assert picture.shape == (10, 1667, 3)
    assert np.argwhere(picture.any(axis=2)).tolist() == [[2, 1440]]


def test_shares_are_half_at_the_threshold():
    found = overlay(1.0, 3.0).shares(np.array([[0.0, 1.0, 2.0], [3.0, 9.0, np.nan]]))
    np.testing.assert_allclose(found, [[0, 0, 0.25], [0.5, 1, 0]])


def test_of_what_a_detector_finds(good, defective, tmp_path):
    det = make_detector().fit(good)
    drawn = HeatmapOverlay(det)
    assert drawn.threshold == det.heatmap_threshold_ > drawn.usual > 0
    encoded = BytesIO()
    Image.fromarray(defective[0]).save(encoded, format="PNG")
    (tmp_path / "part.png").write_bytes(encoded.getvalue())
    (found,) = det.inspect(defective[:1])
    pictures = [
        drawn.draw(image, found.heatmap(), found.regions)
        for image in (defective[0], tmp_path / "part.png", encoded.getvalue())
    ]
    assert all(picture.size == (48, 40) and picture.mode == "RGB" for picture in pictures)
    arrays = [np.asarray(picture) for picture in pictures]
    np.testing.assert_array_equal(arrays[0], arrays[1])
    np.testing.assert_array_equal(arrays[0], arrays[2])
    assert (arrays[0] == [0, 255, 0]).all(axis=2).any()
    assert (arrays[0] != defective[0]).any(axis=2)[8:20, 30:42].all()


def test_the_map_of_another_image_is_refused(good, tmp_path):
    with pytest.raises(ValueError, match="image has 40 x 48 pixels and the map 40 x 40"):
        overlay(0.0, 1.0).draw(good[0], np.zeros((40, 40), np.float32))
    with pytest.raises(ValueError, match=r"missing\.png"):
        overlay(0.0, 1.0).draw(tmp_path / "missing.png", np.zeros((40, 40), np.float32))


def test_a_detector_without_calibration_scores_has_a_scale():
    drawn = HeatmapOverlay(SimpleNamespace(heatmap_threshold_=2.0, calibration_scores_=None))
    assert (drawn.usual, drawn.threshold) == (1.0, 2.0)


def test_it_is_public():
    assert skad.HeatmapOverlay is HeatmapOverlay
