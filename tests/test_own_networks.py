"""Networks of a user's own: told apart by what they do, recognised on another day and processor."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_detector, make_recontrast
from torch import nn

from skad import FeatureError
from skad._features._timm import import_timm


class Layers(nn.Module):
    """A convolution, then whatever it is given; two layers."""

    def __init__(self, after):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, 4, 1)
        self.conv.weight.data = torch.randn(self.conv.weight.shape, generator=generator) / 5
        self.conv.bias.data.zero_()
        self.after = after

    def forward(self, x):
        x = self.after(self.conv(x))
        return [x, nn.functional.avg_pool2d(x, 2)]


class Pooled(nn.Module):
    """Nothing to learn at all."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        return [self.pool(x)]


def scores(network, good, defective):
    return make_detector(backbone=network, coreset_size=0.5).fit(good).score_samples(defective)


@pytest.mark.parametrize(
    ("make", "one", "other"),
    [
        (Layers, nn.ReLU(), nn.GELU()),
        (Layers, nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
        (Layers, torch.tanh, torch.sigmoid),
        (Layers, lambda x: x, lambda x: x * x),
        (Pooled, nn.MaxPool2d(4), nn.AvgPool2d(4)),
        (Pooled, nn.LPPool2d(1, 4), nn.LPPool2d(2, 4)),
    ],
)
def test_equal_weights_and_other_functions(good, defective, make, one, other):
    found = [scores(make(after), good, defective) for after in (one, other, one)]
    assert not np.array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def change_function(network):
    network.after = nn.Tanh()


def change_setting(network):
    network.conv.padding_mode = "circular"


@pytest.mark.parametrize("change", [change_function, change_setting])
def test_a_network_that_changed_since_fit_is_refused(good, change):
    network = Layers(nn.ReLU())
    det = make_detector(backbone=network).fit(good)
    before = det.score_samples(good)
    other = copy.deepcopy(network)
    change(other)
    with pytest.raises(ValueError, match="its configuration changed"):
        det.set_params(backbone=other).score_samples(good)
    with pytest.raises(ValueError, match="its configuration changed"):
        det.partial_fit(good)
    np.testing.assert_array_equal(det.set_params(backbone=network).score_samples(good), before)
    change(network)
    with pytest.raises(ValueError, match="its configuration changed"):
        det.predict_heatmap(good)


def test_weights_that_changed_in_place_are_refused(good):
    network = Layers(nn.ReLU())
    det = make_detector(backbone=network).fit(good)
    network.conv.weight.data[0] *= 1.01
    with pytest.raises(ValueError, match="weights are not those"):
        det.predict(good)


FACTORS = {}


class Secret:
    """Says nothing about itself."""

    __slots__ = ()

    def __deepcopy__(self, memo):
        return self

    def __call__(self, x):
        return x * FACTORS[id(self)]


@pytest.mark.parametrize("factor", [1.1, 1.0])
def test_what_no_description_tells_is_seen_in_the_answers(good, factor):
    secret = Secret()
    FACTORS[id(secret)] = 1.0
    det = make_detector(backbone=Layers(secret)).fit(good)
    before = det.score_samples(good)
    FACTORS[id(secret)] = factor
    if factor == 1.0:
        np.testing.assert_array_equal(det.score_samples(good), before)
    else:
        with pytest.raises(ValueError, match="its outputs changed"):
            det.predict(good)


def test_a_buffer_that_no_file_would_hold_is_seen_in_the_answers(good):
    network = Layers(nn.Sequential(nn.BatchNorm2d(8, affine=False)))
    norm = network.after[0]
    norm._non_persistent_buffers_set.update({"running_mean", "running_var"})
    det = make_detector(backbone=network).fit(good)
    norm.running_mean += 1
    with pytest.raises(ValueError, match="its outputs changed"):
        det.predict(good)


def test_copies_and_training_mode_are_the_same_network(good):
    network = Layers(nn.ReLU())
    det = make_detector(backbone=network).fit(good)
    before = det.score_samples(good)
    network.train().requires_grad_(True)
    np.testing.assert_array_equal(det.score_samples(good), before)
    again = det.set_params(backbone=copy.deepcopy(network))
    np.testing.assert_array_equal(again.score_samples(good), before)


def test_a_pickle_scores_with_more_threads_and_other_kernels(good, tmp_path):
    det = make_detector(backbone=Layers(nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()))).fit(good)
    (tmp_path / "det.pickle").write_bytes(pickle.dumps(det))
    np.save(tmp_path / "good.npy", good)
    code = f"""
import pickle, sys
import numpy as np, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
torch.set_num_threads(4)
with open({str(tmp_path / "det.pickle")!r}, "rb") as file:
    det = pickle.load(file)
np.save({str(tmp_path / "scores.npy")!r}, det.score_samples(np.load({str(tmp_path / "good.npy")!r})))
"""
    subprocess.run(
        [sys.executable, "-c", code],
        check=True, timeout=120, env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
    )  # fmt: skip
    expected = det.score_samples(good)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, rtol=1e-3, atol=1e-4)


def test_detectors_of_older_versions_have_weights_to_go_by(good):
    det = make_detector(backbone=Layers(nn.ReLU())).fit(good)
    before = det.score_samples(good)
    del det._backbone_identity
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(det)).score_samples(good), before)


def test_a_model_of_timm_has_no_need_of_it(good):
    det = make_detector(backbone=Layers(nn.ReLU())).fit(good)
    assert hasattr(det, "_backbone_identity")
    assert not hasattr(det.set_params(backbone="skad_nano").fit(good), "_backbone_identity")


def test_recontrast_too(good):
    network = import_timm().create_model("resnet10t", features_only=True, out_indices=(1, 2, 3))
    det = make_recontrast(backbone=network, max_iter=2, warm_start=True).fit(good)
    network.act1 = nn.Tanh()
    with pytest.raises(ValueError, match="its configuration changed"):
        det.predict(good)
    with pytest.raises(ValueError, match="cannot go on with another backbone"):
        det.set_params(max_iter=4).fit(good)


def test_one_tensor_instead_of_a_list(good):
    network = nn.Conv2d(3, 8, 3, 4)
    with pytest.raises(ValueError, match=r"one tensor of shape .*: \[x\] instead of x"):
        make_detector(backbone=network).fit(good)


class SometimesNaN(nn.Module):
    """Fails on bright images, as an overflow in half precision would."""

    def __init__(self, spoilt):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.spoilt = nn.Conv2d(3, 8, 3, 4, 1), spoilt

    def forward(self, x):
        maps = self.conv(x)
        bright = x.amax(dim=(1, 2, 3)) > 2
        maps[bright, 0, 0, 0] *= self.spoilt
        return [maps]


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("method", ["score_samples", "predict", "predict_heatmap", "partial_fit"])
def test_features_that_are_no_numbers_are_no_verdict(good, method, spoilt):
    dark = good // 2
    det = make_detector(backbone=SometimesNaN(spoilt), layers=(0,)).fit(dark)
    bright = dark[3].copy()
    bright[10:20, 10:20] = 255
    with pytest.raises(
        FeatureError, match=r"image 3 \(array of shape .*features are NaN, infinite"
    ):
        getattr(det, method)([*dark[:3], bright, dark[4]])
    det.predict(dark)


def test_training_images_are_named_as_the_user_has_them(good):
    X = np.concatenate([good[:2] // 2, good[:3] // 2])
    X[4, 10:20, 10:20] = 255
    with pytest.raises(FeatureError, match="image 4 "):
        make_detector(backbone=SometimesNaN(np.nan), layers=(0,)).fit(X, [1, -1, 1, 1, 1])


def test_weights_of_nan(good):
    net = SometimesNaN(1.0)
    with torch.no_grad():
        net.conv.weight[0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        make_detector(backbone=net, layers=(0,)).fit(good)
