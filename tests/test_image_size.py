"""image_size="auto": what it stands for, and that what it stood for stays."""

import numpy as np
import pytest
import torch
from conftest import make_detector

import skad
from skad._features import default_image_size


@pytest.mark.parametrize(
    ("backbone", "side", "size"),
    [
        ("resnet18.tv_in1k", 200, 224),
        ("resnet18.tv_in1k", 319, 224),
        ("resnet18.tv_in1k", 2000, 320),
        ("resnet18", 2000, 320),
        ("tf_efficientnet_b4.ns_jft_in1k", 100, 380),
        ("tf_efficientnet_b4.ns_jft_in1k", 2000, 380),
        ("vit_base_patch16_224.augreg_in21k", 2000, 224),
        (torch.nn.Identity(), 2000, 224),
    ],
)
def test_by_backbone_and_photographs(backbone, side, size):
    assert default_image_size(backbone, side) == size


def test_an_unknown_backbone_is_named():
    with pytest.raises(ValueError, match="resnet1800"):
        default_image_size("resnet1800", 100)


def test_it_is_resolved_by_fit_and_kept(tmp_path):
    rng = np.random.default_rng(0)
    good = [rng.integers(90, 110, (330, 400, 3), dtype=np.uint8) for _ in range(5)]
    det = make_detector(backbone="resnet10t", weights=None, image_size="auto", coreset_size=50)
    assert not hasattr(det, "image_size_")
    det.fit(good)
    assert det.image_size_ == 320
    assert det.get_params()["image_size"] == "auto"
    det.partial_fit([image[:100, :100] for image in good])
    assert det.image_size_ == 320
    skad.save(det, tmp_path / "det.skad")
    read = skad.load(tmp_path / "det.skad")
    assert read.image_size_ == 320
    np.testing.assert_array_equal(read.score_samples(good), det.score_samples(good))
    assert det.fit([image[:100, :100] for image in good]).image_size_ == 176
