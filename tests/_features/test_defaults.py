"""What "auto" stands for, by the kind of backbone."""

import pytest
import torch
from conftest import make_detector

import skad
from skad._features import default_layers, default_normalize, default_patch_size, layers_of_strides


@pytest.mark.parametrize(
    ("backbone", "layers", "patch_size"),
    [
        ("skad_nano", (2, 3), 3),
        ("resnet18.tv_in1k", (2, 3), 3),
        ("wide_resnet50_2.tv_in1k", (2, 3), 3),
        ("densenet201.tv_in1k", (2, 3), 3),
        ("efficientnet_lite0", (2, 3), 3),
        ("convnext_atto.d2_in1k", (1, 2), 3),
        ("swin_tiny_patch4_window7_224.ms_in1k", (1, 2), 3),
        ("hiera_tiny_224.mae_in1k_ft_in1k", (1, 2), 3),
        ("vgg11", (3, 4), 3),
        ("efficientvit_m0.r224_in1k", (0, 1), 3),
        ("vit_small_patch14_dinov2.lvd142m", (2, 5, 8, 11), 1),
        ("vit_large_patch16_dinov3.lvd1689m", (5, 11, 17, 23), 1),
        ("eva02_tiny_patch14_224", (2, 5, 8, 11), 1),
        (torch.nn.Identity(), (2, 3), 3),
    ],
)
def test_by_the_kind_of_backbone(backbone, layers, patch_size):
    assert default_layers(backbone) == layers
    assert default_patch_size(backbone) == patch_size
    assert default_normalize(backbone) == (patch_size == 1)  # both for transformers


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [
        ("skad_nano", (1, 2, 3)),
        ("efficientnet_lite0", (1, 2, 3)),
        ("convnext_atto.d2_in1k", (0, 1, 2)),
        ("vgg11", (2, 3, 4)),
        ("vit_small_patch14_dinov2.lvd142m", None),
        ("levit_128s", None),
    ],
)
def test_layers_by_their_strides(backbone, layers):
    assert layers_of_strides(backbone, (4, 8, 16)) == layers


def test_an_unknown_backbone_is_named():
    with pytest.raises(ValueError, match="resnet1800"):
        default_layers("resnet1800")


def test_they_are_resolved_by_fit_and_kept(good, tmp_path):
    det = make_detector().fit(good)
    assert det.get_params()["layers"] == det.get_params()["patch_size"] == "auto"
    assert (det.feature_spec_.layers, det.feature_spec_.patch_size) == ((2, 3), 3)
    skad.save(det, tmp_path / "det.skad")
    assert skad.load(tmp_path / "det.skad").feature_spec_ == det.feature_spec_
    same = make_detector(layers=(2, 3), patch_size=3).fit(good)
    assert (same.score_samples(good) == det.score_samples(good)).all()


@pytest.mark.filterwarnings("error")
def test_the_first_blocks_of_a_transformer_are_warned_of(good):
    params = {"backbone": "deit_tiny_patch16_224", "weights": None, "coreset_size": 20}
    with pytest.warns(UserWarning, match=r"first of the 12 blocks.*takes \(2, 5, 8, 11\)"):
        make_detector(**params, layers=(0, 1)).fit(good)
    det = make_detector(**params).fit(good)
    assert (det.feature_spec_.layers, det.feature_spec_.patch_size) == ((2, 5, 8, 11), 1)
    assert det.feature_spec_.normalize
    assert not make_detector(**params, normalize=False).fit(good).feature_spec_.normalize
    assert det.bank_.vectors.shape[1] == 4 * 192
