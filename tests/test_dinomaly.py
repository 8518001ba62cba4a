"""DinomalyDetector: what it finds, its layers and sizes, and what it refuses."""

import numpy as np
import pytest
import torch
from conftest import make_detector, make_dinomaly
from torch import nn

from skad import ScoreFusionDetector
from skad._features import load_backbone, middle_layers

FEW = pytest.mark.filterwarnings("ignore:target_false_alarm_rate:UserWarning")
pytestmark = FEW


class Maps(nn.Module):
    """A network of the user's own: three maps of one shape, of patches of 8 pixels."""

    def __init__(self, widths=(32, 32, 32)):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.blocks = nn.ModuleList(nn.Conv2d(32, width, 1) for width in widths)

    def forward(self, x):
        x = self.patches(x)
        return [block(x).tanh() for block in self.blocks]


@pytest.fixture(scope="module")
def fitted(good):
    return make_dinomaly(weights=None, max_iter=40).fit(good)


def test_finds_defects_where_they_are(fitted, good, defective):
    assert fitted.score_samples(defective).max() < fitted.score_samples(good).min()
    assert (fitted.predict(defective) == -1).all()
    for heatmap in fitted.predict_heatmap(defective):
        row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        assert 4 <= row < 24
        assert 26 <= column < 46


def test_learned_state(fitted):
    assert fitted.n_iter_ == 40
    assert fitted.loss_curve_.shape == (40,)
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0] / 3
    assert fitted.layers_ == (1, 2, 3, 4)
    assert {name.split(".")[0] for name in fitted.network_} == {"bottleneck", "decoder"}
    assert not hasattr(fitted, "feature_diversity_")


def test_repeats_bitwise_and_leaves_the_global_generator_alone(good):
    before = torch.get_rng_state()
    one, two = (make_dinomaly(max_iter=3).fit(good) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(one.loss_curve_, two.loss_curve_)
    np.testing.assert_array_equal(one.score_samples(good), two.score_samples(good))
    assert not np.array_equal(
        one.loss_curve_, make_dinomaly(max_iter=3, random_state=1).fit(good).loss_curve_
    )


def test_a_training_that_goes_on(good):
    det = make_dinomaly(max_iter=2, warm_start=True).fit(good)
    det.set_params(max_iter=4).fit(good)
    assert det.n_iter_ == len(det.loss_curve_) == 4
    with pytest.raises(ValueError, match="another n_groups"):
        det.set_params(n_groups=1, max_iter=6).fit(good)


def test_tokens_are_those_of_the_blocks():
    """The class token comes first; no norm is applied."""
    net = load_backbone("test_vit", None, (1, 4), torch.device("cpu"), image_size=64)
    model = net.body.model
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    tokens, grid = net.tokens(pixels)
    assert grid == (4, 4)
    x = (pixels.float() / 255 - net.mean.flatten()) / net.std.flatten()
    with torch.inference_mode():
        x = model.norm_pre(model._pos_embed(model.patch_embed(x.permute(0, 3, 1, 2))))
        for i, block in enumerate(model.blocks):
            x = block(x)
            if i in (1, 4):
                torch.testing.assert_close(tokens[(1, 4).index(i)], x)
    assert tokens[0].shape == (2, model.num_prefix_tokens + 16, 64)
    assert model.num_prefix_tokens > 0


def test_the_middle_layers():
    assert middle_layers("vit_base_patch14_reg4_dinov2.lvd142m") == tuple(range(2, 10))
    assert middle_layers("vit_large_patch14_reg4_dinov2.lvd142m") == tuple(range(4, 20, 2))
    assert middle_layers("test_vit") == (1, 2, 3, 4)


@pytest.mark.parametrize("layers", [(3,), [0, 2, 5], np.array([1, 2])])
def test_given_layers(layers, good, defective):
    det = make_dinomaly(layers=layers, n_groups=1, max_iter=2, warm_start=True).fit(good)
    assert det.layers_ == tuple(layers)
    assert sum("attn.proj.weight" in name for name in det.network_) == len(layers)
    assert np.isfinite(det.set_params(max_iter=3).fit(good).score_samples(defective)).all()


def test_the_default_size_has_28_patches(good):
    det = make_dinomaly(image_size="auto", max_iter=0, layers=(0,), n_groups=1).fit(good[:4])
    assert det.image_size_ == 448
    assert det.get_params()["image_size"] == "auto"


def test_a_network_of_ones_own(good, defective):
    det = make_dinomaly(backbone=Maps(), image_size=(40, 48), max_iter=30).fit(good)
    assert det.score_samples(defective).max() < det.score_samples(good).min()
    with pytest.raises(ValueError, match="tiles need a backbone whose patches"):
        make_dinomaly(backbone=Maps(), tiles="native").fit(good)
    with pytest.raises(
        ValueError, match=r"layers of one grid and width.*\(32, 8, 8\), \(16, 8, 8\)"
    ):
        make_dinomaly(backbone=Maps((32, 16))).fit(good)


def test_many_kinds_of_parts_at_once(good):
    other = np.roll(good.transpose(0, 2, 1, 3)[:, :40], 5, axis=1)
    both = [*good, *other]
    det = make_dinomaly(max_iter=60).fit(both)
    damaged = [image.copy() for image in (good[0], other[0])]
    for image in damaged:
        image[8:20, 20:32] = 255
    assert det.score_samples(damaged).max() < det.score_samples(both).min()


def test_in_a_fusion(good, defective):
    members = [("bank", make_detector()), ("decoder", make_dinomaly(max_iter=20))]
    fused = ScoreFusionDetector(members, target_false_alarm_rate=0.35).fit(good)
    assert (fused.predict(defective) == -1).all()


def test_tiles(good, defective):
    det = make_dinomaly(image_size=64, tiles="native", max_iter=4).fit(
        [np.pad(image, ((0, 60), (0, 60), (0, 0)), mode="symmetric") for image in good]
    )
    image = np.pad(defective[0], ((0, 60), (0, 60), (0, 0)), mode="symmetric")
    maps, scores = det.predict_heatmap([image], return_scores=True)
    assert maps[0].shape == (100, 108)
    assert -scores[0] >= maps[0].max() - 1e-6


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": "resnet18"}, "'resnet18' is no plain vision transformer.*ReContrastDetector"),
        ({"backbone": "swin_tiny_patch4_window7_224"}, "is no plain vision transformer"),
        ({"image_size": 70}, "70 is not a multiple of 16, the patch of 'test_vit': use 64 or 80"),
        ({"n_groups": 5}, "n_groups=5 cannot be more than there are layers, 4"),
        ({"layers": (2, 7)}, "layers=.*do not all exist in 'test_vit'"),
        ({"layers": ()}, "layers="),
        ({"discard": 1.0}, "'discard' parameter"),
        ({"validation_fraction": 0.0}, "validation_fraction=0 holds no good image out"),
    ],
)
def test_what_it_refuses(params, message, good):
    with pytest.raises(ValueError, match=message):
        make_dinomaly(**params).fit(good)


def test_a_training_that_diverges(good):
    with pytest.raises(ValueError, match=r"diverged\. Lower lr \(now 1e\+30\)"):
        make_dinomaly(lr=1e30, final_lr=1e30).fit(good)
