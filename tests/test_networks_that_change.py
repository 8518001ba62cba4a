"""Networks of a user's own that read what lies outside them: scores of the fit, or an error."""

import os
import types
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import numpy as np
import pytest
import torch
from conftest import make_detector, make_recontrast
from torch import nn

import skad._features.backbones as home
from skad._features._timm import import_timm

VARIABLE = ContextVar("factor", default=1.0)
TABLE = {"factors": [1.0]}
SETTINGS = types.SimpleNamespace(inner=types.SimpleNamespace(factor=1.0))
SCALE = torch.ones(1)
FILE = None


class Settings:
    factors = np.ones(2)


def number_in_a_file():
    with open(FILE, encoding="utf-8") as file:
        return float(file.read())


# How a factor is read, and how it is changed.
OUTSIDE = {
    "environment": (
        lambda: float(os.environ["SKAD_TEST_FACTOR"]),
        lambda patch, factor: patch.setenv("SKAD_TEST_FACTOR", str(factor)),
    ),
    "file": (number_in_a_file, lambda patch, factor: FILE.write_text(str(factor))),
    "context variable": (VARIABLE.get, lambda patch, factor: VARIABLE.set(factor)),
    "attribute of a library": (
        lambda: getattr(np, "skad_test_factor", 1.0),
        lambda patch, factor: patch.setattr(np, "skad_test_factor", factor, raising=False),
    ),
    "list in a dictionary": (
        lambda: TABLE["factors"][0],
        lambda patch, factor: TABLE["factors"].__setitem__(0, factor),
    ),
    "array of a class": (
        lambda: float(Settings.factors[1]),
        lambda patch, factor: patch.setattr(Settings, "factors", np.array([1, factor])),
    ),
    "namespace": (
        lambda: SETTINGS.inner.factor,
        lambda patch, factor: patch.setattr(SETTINGS.inner, "factor", factor),
    ),
    "tensor": (
        lambda: SCALE,
        lambda patch, factor: patch.setitem(globals(), "SCALE", torch.full((1,), factor)),
    ),
}


class Reading(nn.Module):
    """Its convolution and what follows are fused, whatever it has read by then included."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.kind = nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), kind

    def forward(self, x):
        read, _ = OUTSIDE[self.kind]
        return [nn.functional.leaky_relu(self.norm(self.conv(x)), 0.1).clamp(max=1) * read()]


@pytest.fixture
def setting(monkeypatch, tmp_path):
    def setting(kind, factor):
        OUTSIDE[kind][1](monkeypatch, factor)

    monkeypatch.setitem(globals(), "FILE", tmp_path / "factor.txt")
    token = VARIABLE.set(1.0)
    yield setting
    VARIABLE.reset(token)


@pytest.mark.parametrize("kind", OUTSIDE)
def test_a_change_after_fit_is_an_error_until_it_is_taken_back(good, setting, kind):
    setting(kind, 1.0)
    network = Reading(kind)
    det = make_detector(backbone=network, layers=(0,), whitening=0).fit(good)
    before = det.score_samples(good)
    setting(kind, 2.0)
    for method in ("score_samples", "predict_heatmap", "partial_fit"):
        with pytest.raises(ValueError, match=r"(outputs|configuration) changed"):
            getattr(det, method)(good)
    other = make_detector(backbone=network, layers=(0,), whitening=0).fit(good)
    np.testing.assert_allclose(other.score_samples(good), 2 * before, rtol=1e-4, atol=1e-5)
    setting(kind, 1.0)
    np.testing.assert_array_equal(det.score_samples(good), before)
    with pytest.raises(ValueError, match=r"(outputs|configuration) changed"):
        other.predict(good)


def test_it_is_asked_once_a_call_whatever_the_number_of_batches(good, setting, monkeypatch):
    setting("environment", 1.0)
    det = make_detector(backbone=Reading("environment"), layers=(0,), batch_size=1).fit(good)
    asked, ask = [], home.FeatureNet.is_up_to_date
    monkeypatch.setattr(home.FeatureNet, "is_up_to_date", lambda *a: (asked.append(1), ask(*a))[1])
    for n, method in enumerate(("predict", "predict_heatmap", "anomaly_p_value"), 1):
        getattr(det, method)(good)
        assert len(asked) == n


def test_threads_ask_beside_each_other(good, setting):
    setting("list in a dictionary", 1.0)
    det = make_detector(backbone=Reading("list in a dictionary"), layers=(0,)).fit(good)
    before = det.score_samples(good)
    with ThreadPoolExecutor(4) as pool:
        for scores in pool.map(det.score_samples, [good] * 8):
            np.testing.assert_array_equal(scores, before)


def test_recontrast_too(good, setting):
    setting("environment", 1.0)
    network = import_timm().create_model("skad_nano", features_only=True, out_indices=(1, 2, 3))
    network.register_forward_hook(lambda module, x, maps: [y * factor() for y in maps])
    det = make_recontrast(backbone=network, max_iter=1).fit(good)
    before = det.score_samples(good)
    setting("environment", 2.0)
    with pytest.raises(ValueError, match="outputs changed"):
        det.predict(good)
    setting("environment", 1.0)
    np.testing.assert_array_equal(det.score_samples(good), before)


def factor():
    return OUTSIDE["environment"][0]()


CELL = """
import torch
from torch import nn

def outer(x):
    return [inner(x)]

def inner(x):
    return torch.nn.functional.{}(x)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8)

    def forward(self, x):
        return outer(self.norm(self.conv(x)))

network = Net()
"""


def test_a_cell_that_is_run_again_with_another_function(good):
    found = {}
    for name in ("elu", "softsign", "elu"):
        names = {"__name__": "__main__"}
        exec(CELL.format(name), names)
        det = make_detector(backbone=names["network"], layers=(0,)).fit(good[:6])
        found.setdefault(name, []).append(det.score_samples(good))
    np.testing.assert_array_equal(*found["elu"])
    assert not np.array_equal(found["elu"][0], found["softsign"][0])


@pytest.mark.parametrize("n", [1, 2, 4])
def test_recontrast_wants_three_maps(good, n):
    class Some(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, 4, 1)

        def forward(self, x):
            return [self.conv(x)] * n

    answered = ", ".join([r"\(1, 8, 8, 8\)"] * n)
    with pytest.raises(ValueError, match=f"three feature maps.*It returned {answered}"):
        make_recontrast(backbone=Some(), max_iter=1).fit(good)
