"""Exported files judge all real images as their detectors do; the export compares scores and maps."""

import numpy as np
import pytest
from exported_files import need_libraries

import skad
from skad import PatchCoreDetector

pytestmark = pytest.mark.real
SETS = (
    *("aws_aliens", "casting", "kolektor_sdd", "magnetic_tile"),
    *("mvtec_bottle", "mvtec_bottle_masks", "mvtec_pill"),
)
_LEARNED = 40


@pytest.mark.parametrize("name", SETS)
def test_every_image_of_a_set(name, shared, tmp_path):
    need_libraries()
    folder = shared / "data" / name
    good = sorted((folder / "train" / "good").glob("*"))
    images = [*good, *sorted((folder / "test").glob("*/*"))]
    det = PatchCoreDetector("skad_nano", image_size=224, random_state=0).fit(good[:_LEARNED])
    skad.export_onnx(det, tmp_path / "line3.onnx", images)
    line = skad.load(tmp_path / "line3.onnx")
    assert line.content_.verified["n_images"] == len(images)
    np.testing.assert_array_equal(line.predict(images[-20:]), det.predict(images[-20:]))
