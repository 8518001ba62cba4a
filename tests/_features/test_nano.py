"""skad_nano: a backbone like any other of timm's, whose weights are in the package."""

import pickle
import socket
from collections import OrderedDict

import numpy as np
import pytest
import torch

from skad import PatchCoreDetector
from skad._features import backbones
from skad._features._timm import import_timm
from skad._features.backbones import load_backbone
from skad._features.nano import WEIGHTS
from skad._features.weight_files import read_state_dict

CPU = torch.device("cpu")
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))


def test_weights_are_small_half_precision_and_finite():
    assert WEIGHTS.stat().st_size <= 3_000_000
    tensors = read_state_dict(WEIGHTS).values()
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float16}
    assert all(torch.isfinite(t).all() for t in tensors)


def test_layers_have_the_strides_of_the_papers():
    net = load_backbone("skad_nano", "pretrained", (1, 2, 3), CPU)
    assert list(net.strides) == [4, 8, 16]
    assert [(m.shape[1], *m.shape[2:]) for m in net(PIXELS)] == [
        (channels, 64 // stride, 96 // stride)
        for channels, stride in zip(net.channels, net.strides, strict=True)
    ]


def test_a_layer_beyond_the_last_is_refused():
    with pytest.raises(ValueError, match=r"layers=\(2, 4\).*'skad_nano'.*last layer is 3"):
        load_backbone("skad_nano", "pretrained", (2, 4), CPU)


def test_trained_weights_are_not_the_random_ones():
    trained = load_backbone("skad_nano", "pretrained", (2, 3), CPU)
    random = load_backbone("skad_nano", None, (2, 3), CPU)
    assert trained.digest != random.digest
    assert not np.allclose(trained(PIXELS)[0], random(PIXELS)[0], atol=0.1)


def test_timm_builds_it_too():
    """By its name, with weights, classifier-less: whoever fine-tunes it needs no skad function."""
    model = import_timm().create_model("skad_nano", pretrained=True).eval()
    images = PIXELS.permute(0, 3, 1, 2).float() / 255
    net = load_backbone("skad_nano", "pretrained", (3,), CPU)
    with torch.no_grad():
        stage = model.forward_features((images - net.mean) / net.std)
        torch.testing.assert_close(model.necks[2](stage), net(PIXELS)[0])
        assert model(images).shape == (2, net.channels[0])
        last, layers = model.forward_intermediates(images, indices=[1, 3])
        assert [layer.shape[-1] for layer in layers] == [24, 6]
        torch.testing.assert_close(last, model.forward_features(images))


def test_works_without_any_network(monkeypatch):
    """The weights are in the package."""

    def refuse(*args, **kwargs):
        raise OSError("no network here")

    for name in ("create_connection", "getaddrinfo", "socket"):
        monkeypatch.setattr(socket, name, refuse)
    # As in another process.
    monkeypatch.setattr(backbones, "_alive", {})
    monkeypatch.setattr(backbones, "_latest", OrderedDict())
    load_backbone("skad_nano", "pretrained", (2, 3), CPU)


def test_in_the_detector(good, defective):
    detector = PatchCoreDetector(
        "skad_nano", image_size=64, coreset_size=0.1, target_false_alarm_rate=0.2, random_state=0
    ).fit(good)
    assert detector.score_samples(defective).max() < detector.score_samples(good).min()
    heatmaps = detector.predict_heatmap(defective)
    rows, columns = zip(
        *(np.unravel_index(heatmap.argmax(), heatmap.shape) for heatmap in heatmaps), strict=True
    )
    assert all(4 <= row <= 24 for row in rows)
    assert all(26 <= column <= 46 for column in columns)


def test_score_of_an_image_does_not_depend_on_its_neighbours(good):
    detector = PatchCoreDetector(
        "skad_nano", image_size=64, target_false_alarm_rate=0.2, random_state=0
    ).fit(good)
    together = detector.score_samples(good)
    alone = np.concatenate([detector.score_samples([image]) for image in good])
    np.testing.assert_array_equal(together, alone)


def test_a_pickled_detector_does_not_carry_it(good):
    detector = PatchCoreDetector(
        "skad_nano", image_size=64, coreset_size=50, target_false_alarm_rate=0.2, random_state=0
    ).fit(good)
    stored = pickle.dumps(detector)
    assert len(stored) < 200_000
    np.testing.assert_array_equal(
        pickle.loads(stored).score_samples(good), detector.score_samples(good)
    )
