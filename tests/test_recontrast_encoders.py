"""ReContrast around encoders that are no ResNets: all that holds for ResNets."""

import pickle

import numpy as np
import pytest
import tiny_encoders
import torch
from conftest import make_recontrast
from torch import nn

import skad
from skad._features import backbones, load_backbone
from skad._features._timm import import_timm

pytestmark = pytest.mark.filterwarnings("ignore:target_false_alarm_rate:UserWarning")

TINY = ["tiny_convnext", "tiny_efficientnet", "tiny_densenet"]
assert set(TINY) < set(tiny_encoders.__all__)
# Channels at strides 4, 8 and 16.
CHANNELS = {
    "tiny_convnext": [8, 12, 20],
    "tiny_efficientnet": [8, 16, 32],
    "tiny_densenet": [24, 20, 18],
}
# Of random weights: an EfficientNet's deep features vanish without statistics of its own.
SETTINGS = {
    "tiny_convnext": {"image_size": 64, "max_iter": 20},
    "tiny_efficientnet": {"bn": "train", "max_iter": 12},
    "tiny_densenet": {"image_size": 64, "max_iter": 20},
}


def make(backbone, **params):
    return make_recontrast(backbone=backbone, weights=None, **params)


def arrays_equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def assert_shown(maps):
    """The defects are at rows 8 to 20, columns 30 to 42."""
    assert maps.shape == (4, 40, 48)
    peaks = [np.unravel_index(heatmap.argmax(), heatmap.shape) for heatmap in maps]
    assert all(8 <= row < 20 and 30 <= column < 42 for row, column in peaks)


def forget_backbones():
    """As in another process."""
    backbones._alive.clear()
    backbones._latest.clear()


@pytest.fixture(scope="module", params=TINY)
def fitted(request, good):
    return make(request.param, **SETTINGS[request.param]).fit(good)


class TestEveryFamily:
    def test_finds_defects(self, fitted, good, defective):
        assert fitted.score_samples(defective).max() < fitted.score_samples(good).min()

    def test_heat_maps_show_them(self, fitted, defective):
        if fitted.image_size > 32:
            assert_shown(fitted.predict_heatmap(defective))

    def test_decoder_has_the_channels_of_strides_4_8_16(self, fitted):
        found = [fitted.network_[f"heads_frozen.{k}.bias"].shape[0] for k in range(3)]
        assert found == CHANNELS[fitted.backbone]
        assert fitted.loss_curve_[-1] < fitted.loss_curve_[0] / 1.2

    def test_scores_do_not_depend_on_the_batch(self, fitted, good):
        together = fitted.score_samples(good)
        alone = np.concatenate([fitted.score_samples(good[i : i + 1]) for i in range(len(good))])
        np.testing.assert_array_equal(together, alone)

    def test_files_keep_scores_bit_by_bit(self, fitted, good, tmp_path):
        expected = fitted.score_samples(good[:3])
        skad.save(fitted, tmp_path / "alone.skad")
        skad.save(fitted, tmp_path / "whole.skad", include_backbone=True)
        copied = pickle.dumps(fitted)
        forget_backbones()
        for loaded in (
            pickle.loads(copied),
            skad.load(tmp_path / "alone.skad"),
            skad.load(tmp_path / "whole.skad"),
        ):
            np.testing.assert_array_equal(loaded.score_samples(good[:3]), expected)
        assert loaded.weights == str(tmp_path / "whole.skad")


class TestSettings:
    def test_warm_start_goes_on_as_if_never_stopped(self, good):
        # Without hard mining, whose level depends on the length of the whole training.
        params = {"backbone": "tiny_efficientnet", "bn": "train", "hard_mining": False}
        det = make(**params, max_iter=1, warm_start=True).fit(good)
        det.set_params(max_iter=3).fit(good)
        assert arrays_equal(det.network_, make(**params, max_iter=3).fit(good).network_)

    @pytest.mark.parametrize("backbone", ["tiny_convnext", "tiny_efficientnet"])
    def test_bfloat16(self, good, backbone):
        params = {"max_iter": 2, "train_precision": "bfloat16", "bn": "train"}
        fits = [make(backbone, **params).fit(good) for _ in range(2)]
        assert arrays_equal(fits[0].network_, fits[1].network_)
        scored = make(backbone, **params, precision="bfloat16").fit(good).score_samples(good)
        np.testing.assert_allclose(scored, fits[0].score_samples(good), rtol=0.03)

    def test_reverse_distillation(self, good):
        det = make("tiny_convnext", max_iter=12, pairs="own", train_encoder=False).fit(good)
        assert not any(name.startswith(("encoder", "heads")) for name in det.network_)
        assert det.loss_curve_[-1] < det.loss_curve_[0] / 1.2

    def test_as_a_network_of_the_users_own(self, good):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(backbones._RANDOM_WEIGHTS_SEED)
            own = import_timm().create_model(
                "tiny_densenet", features_only=True, out_indices=(1, 2, 3)
            )
        named = make("tiny_densenet", max_iter=1).fit(good).score_samples(good[:2])
        np.testing.assert_array_equal(
            make(own, max_iter=1).fit(good).score_samples(good[:2]), named
        )


class TestNorms:
    def test_bn_does_nothing_where_there_are_no_batch_norms(self, good):
        # Batches of one size: "stable" leaves a short one out.
        params = {"max_iter": 3, "validation_fraction": 1 / 3}
        fits = [
            make("tiny_convnext", bn=bn, **params).fit(good) for bn in ("eval", "train", "stable")
        ]
        assert all(arrays_equal(fits[0].network_, other.network_) for other in fits[1:])

    def test_of_timm_with_an_activation(self, good):
        """The variances of the first layer are above that of a dead channel: it is as in "train"."""
        name = "encoder.body.bn1.running_mean"
        stable, trained = (
            make("tiny_efficientnet", max_iter=1, bn=bn).fit(good).network_[name]
            for bn in ("stable", "train")
        )
        np.testing.assert_allclose(stable, trained, rtol=1e-5)
        assert np.abs(trained).max() > 1e-3  # at first they were 0

    def test_dropout_stays_off(self, good):
        """It would draw from torch's global generator."""
        own = nn.Sequential(make_maps(), Dropped())
        before = torch.get_rng_state()
        fits = [make(own, max_iter=2).fit(good) for _ in range(2)]
        assert torch.equal(torch.get_rng_state(), before)
        assert arrays_equal(fits[0].network_, fits[1].network_)


def load_swin():
    return load_backbone("tiny_swin", None, (0, 1, 2), torch.device("cpu"), image_size=64)


class TestChannelsLast:
    def test_a_transformer_whose_stages_halve_the_grid(self, good, defective):
        det = make("tiny_swin", image_size=64, max_iter=12).fit(good)
        assert load_swin().shapes(64) == ((1, 16, 16, 16), (1, 32, 8, 8), (1, 64, 4, 4))
        assert det.score_samples(defective).max() < det.score_samples(good).min()

    def test_maps_whose_sides_are_their_channels_are_turned_too(self, good):
        """16 channels on a grid of 16 x 16: shapes do not tell which axis is which."""
        net = load_swin()
        image = torch.from_numpy(good[:1, :32, :32]).repeat(1, 2, 2, 1)
        first = net.body((image.permute(0, 3, 1, 2) / 255 - net.mean) / net.std)[0]
        torch.testing.assert_close(net(image)[0], first.permute(0, 3, 1, 2))


@pytest.mark.filterwarnings("ignore:tiles=:UserWarning")
def test_tiles(good, defective):
    det = make("tiny_convnext", image_size=64, tiles=(2, 2), max_iter=20).fit(good)
    assert_shown(det.predict_heatmap(defective))


class Maps(nn.Module):
    """Convolutions of given strides, one after the other, each with a map of its own."""

    def __init__(self, strides, last=False):
        super().__init__()
        sides = zip((3, 8, 8, 8), strides, strict=False)
        self.stages = nn.ModuleList(nn.Conv2d(n, 8, 3, stride, 1) for n, stride in sides)
        self.last = last

    def forward(self, x):
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x.permute(0, 2, 3, 1) if self.last else x)
        return maps


class Dropped(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, maps):
        return [self.dropout(layer) for layer in maps]


def make_maps(strides=(4, 2, 2), **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Maps(strides, **options)


class TestErrors:
    @pytest.mark.parametrize(
        ("strides", "options", "returned"),
        [
            ((4, 2), {}, r"\(1, 8, 8, 8\), \(1, 8, 4, 4\)\. Return"),
            ((2, 2, 2), {}, r"\(1, 8, 16, 16\), \(1, 8, 8, 8\), \(1, 8, 4, 4\)"),
            ((4, 2, 2), {"last": True}, r"\(1, 8, 8, 8\), \(1, 4, 4, 8\), \(1, 2, 2, 8\)"),
        ],
    )
    def test_maps_on_other_grids(self, good, monkeypatch, strides, options, returned):
        monkeypatch.setattr(skad.ReContrastDetector, "_start", None)  # no work has been done
        message = rf"with 8 x 8, 4 x 4, 2 x 2 positions. It returned {returned}"
        with pytest.raises(ValueError, match=message):
            make(make_maps(strides, **options)).fit(good)

    @pytest.mark.parametrize(
        ("backbone", "strides"), [("vit_tiny_patch16_224", "16"), ("levit_128s", "16, 32, 64")]
    )
    def test_networks_of_other_strides(self, good, monkeypatch, backbone, strides):
        monkeypatch.setattr(skad._reconstruction, "load_backbone", None)
        message = rf"strides {strides}; .* \(4, 8, 16\). Use a CNN .* there is DinomalyDetector"
        with pytest.raises(ValueError, match=message):
            make(backbone).fit(good)

    def test_a_network_that_is_not_as_it_is_described(self, good):
        """Inception's strides are 4, 8 and 16, but it pads nothing."""
        with pytest.raises(ValueError, match=r"with 16 x 16, 8 x 8, 4 x 4 .*\(1, 192, 12, 12\)"):
            make("inception_v3", image_size=64).fit(good)
