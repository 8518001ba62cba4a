"""Batch norms folded into convolutions."""

import pytest
import torch
from torch import nn

from skad._features import load_backbone
from skad._features._timm import import_timm
from skad._features.folding import fold_batch_norms

CPU = torch.device("cpu")


class Net(nn.Module):
    """Two maps, from modules in the order in which they are defined."""

    def __init__(self, bias=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(8)
        self.down = nn.Sequential(nn.Conv2d(8, 16, 1, 2), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return [x, self.down(x)]


class Swapped(Net):
    """Runs its modules in another order than they are defined in."""

    def forward(self, x):
        x = self.bn1(torch.relu(self.conv1(x)))
        return {"a": x, "b": self.down(x)}


class Choosy(Net):
    """Takes images of one size only."""

    def forward(self, x):
        if x.shape[-1] != 32:
            raise ValueError("32 pixels, please")
        return super().forward(x)


def lived_in(net):
    """The same network with statistics and scales as a training leaves them."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias):
                values.data.uniform_(-1, 1, generator=generator)
            for values in (module.running_var, module.weight):
                values.data.uniform_(0.5, 2, generator=generator)
    return net.eval().requires_grad_(False)


def norms(net):
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("bias", [False, True])
def test_same_maps_without_norms(bias):
    net = lived_in(Net(bias))
    folded = fold_batch_norms(net)
    assert norms(folded) == []
    image = torch.randn(2, 3, 40, 56)
    for a, b in zip(net(image), folded(image), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_original_is_left_alone():
    net = lived_in(Net())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fold_batch_norms(net)
    assert len(norms(net)) == 2
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def hooked():
    net = lived_in(Net())
    net.bn1.register_forward_hook(lambda *args: None)
    net.down[1].register_forward_hook(lambda *args: None)
    return net


@pytest.mark.parametrize(
    "net",
    [lived_in(Swapped()), lived_in(Choosy()), hooked(), nn.Sequential(nn.Conv2d(3, 4, 3))],
    ids=["another order", "another size", "hooks", "no norms"],
)
def test_stays_as_it_is_where_it_cannot_be_folded(net):
    assert fold_batch_norms(net) is net


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "skad_nano"])
def test_backbones(name):
    weights = "pretrained" if name == "skad_nano" else None
    plain = load_backbone(name, weights, (2, 3), CPU)
    folded = load_backbone(name, weights, (2, 3), CPU, fold=True)
    assert len(norms(plain)) > 5
    # One of skad_nano's stands in a stage of its own, away from its convolution.
    assert len(norms(folded)) == (name == "skad_nano")
    # The fingerprint is that of the weights as they came.
    assert folded.digest == plain.digest
    pixels = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        for a, b in zip(plain(pixels), folded(pixels), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(a.abs().max()))


def test_training_gets_the_norms():
    """What is folded cannot be trained: a copy for training comes from a network that is not."""
    trained = load_backbone("resnet18", None, (1, 2, 3), CPU).trainable_copy()
    assert len(norms(trained)) > 5


def test_transformers_have_nothing_to_fold():
    model = import_timm().create_model("vit_tiny_patch16_224", features_only=True).eval()
    assert fold_batch_norms(model) is model
