"""Convolutions fused with batch norms, additions and ReLUs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from skad._features import load_backbone
from skad._features._timm import import_timm
from skad._torch.fusing import FusedConvolution, fuse_convolutions

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


class Undecided(Net):
    """Branches on what it sees."""

    def forward(self, x):
        return super().forward(x if x.mean() > 1e6 else x + 1)


class Residual(nn.Module):
    """Adds something to a normalised convolution, in one of the ways of networks at large."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.aa = nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.stem(x)
        y = self.aa(self.bn(self.conv(x)))
        if self.way == "ours":
            y += x
            y = self.act(y)
        elif self.way == "theirs":
            x += y
            y = self.act(x)
        elif self.way == "sum":
            y = F.relu(x + y)
        elif self.way == "torch.add":
            y = torch.relu(torch.add(y, x, alpha=2))
        elif self.way == "narrow":
            y = F.relu(y + x.mean((2, 3), keepdim=True))
        elif self.way == "both":
            y = F.relu(y + x) + y
        return [x, y]


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


def relus(net):
    return [module.relu for module in net.modules() if isinstance(module, FusedConvolution)]


def assert_same_maps(net, fused, image):
    with torch.inference_mode():
        maps, others = net(image), fused(image)
    pairs = zip(*(m.values() if isinstance(m, dict) else m for m in (maps, others)), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_same_maps_without_norms(bias):
    net = lived_in(Net(bias))
    fused = fuse_convolutions(net)
    assert norms(fused) == []
    assert relus(fused) == [True, True]
    assert_same_maps(net, fused, torch.randn(2, 3, 40, 56))


def test_what_runs_in_another_order_than_it_is_defined_in():
    """The ReLU comes before the norm, which stays."""
    net = lived_in(Swapped())
    fused = fuse_convolutions(net)
    assert relus(fused) == [True, True]
    assert len(norms(fused)) == 1
    assert_same_maps(net, fused, torch.randn(2, 3, 40, 56))


class Shared(nn.Module):
    """One convolution twice, with a norm of its own each time."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv(self.stem(x))))
        return [x, self.bn2(self.conv(x))]


def test_layers_that_run_twice():
    net = lived_in(Shared())
    fused = fuse_convolutions(net)
    assert norms(fused) == []
    assert relus(fused) == [True, False]
    assert_same_maps(net, fused, torch.randn(2, 3, 24, 32))


@pytest.mark.parametrize(
    ("way", "relu"),
    [
        ("ours", True),
        ("sum", True),
        ("theirs", False),  # added in place to what others read
        ("torch.add", False),  # scaled
        ("narrow", False),  # broadcast
        ("both", False),  # read a second time
        ("nothing", False),
    ],
)
def test_additions(way, relu):
    net = lived_in(Residual(way))
    fused = fuse_convolutions(net)
    assert norms(fused) == []
    assert relus(fused) == [relu]
    assert_same_maps(net, fused, torch.randn(2, 3, 24, 32))


class TestOneKernel:
    """What a GPU does, with stand-ins for the kernels of cuDNN that only it has."""

    @pytest.fixture
    def calls(self, monkeypatch):
        calls = []

        def convolve(x, weight, bias, *way):
            calls.append(("relu", x.dtype, weight.dtype))
            with torch.autocast("cpu", enabled=False):
                return torch.relu(torch.conv2d(x, weight, bias, *way))

        def add(x, weight, addend, alpha, bias, *way):
            calls.append(("add", x.dtype, weight.dtype))
            with torch.autocast("cpu", enabled=False):
                return torch.relu(torch.conv2d(x, weight, bias, *way) + alpha * addend)

        monkeypatch.setattr("skad._torch.fusing.fuses_convolutions", lambda device: True)
        monkeypatch.setattr(torch, "cudnn_convolution_relu", convolve)
        monkeypatch.setattr(torch, "cudnn_convolution_add_relu", add)
        return calls

    @pytest.mark.parametrize("net", [lived_in(Net()), lived_in(Net(bias=True))])
    def test_convolution_and_relu(self, calls, net):
        fused = fuse_convolutions(net)
        calls.clear()
        assert_same_maps(net, fused, torch.randn(2, 3, 40, 56))
        assert calls == [("relu", torch.float32, torch.float32)] * 2

    def test_addition(self, calls):
        net = lived_in(Residual("ours"))
        fused = fuse_convolutions(net)
        calls.clear()
        assert_same_maps(net, fused, torch.randn(2, 3, 24, 32))
        assert [name for name, *_ in calls] == ["add"]

    def test_weights_are_cast_once(self, calls):
        fused = fuse_convolutions(lived_in(Net()))
        calls.clear()
        image = torch.randn(1, 3, 40, 56)
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            fused(image)
            convolutions = [m for m in fused.modules() if isinstance(m, FusedConvolution)]
            kept = [dict(m._cast) for m in convolutions]
            maps = fused(image)
        assert {layer.dtype for layer in maps} == {torch.bfloat16}
        assert calls == [("relu", torch.bfloat16, torch.bfloat16)] * 4
        assert len(kept) == 2
        for convolution, before in zip(convolutions, kept, strict=True):
            assert (torch.bfloat16, CPU) in before
            assert before.keys() == convolution._cast.keys()
            for key, parameters in before.items():
                for once, twice in zip(parameters, convolution._cast[key], strict=True):
                    assert once is twice

    def test_one_after_the_other_where_there_is_no_such_kernel(self, calls, monkeypatch):
        def refuse(*args):
            calls.append("refused")
            raise RuntimeError("unable to find an engine to execute this computation")

        net = lived_in(Net())
        fused = fuse_convolutions(net)
        monkeypatch.setattr(torch, "cudnn_convolution_relu", refuse)
        calls.clear()
        for _ in range(2):
            assert_same_maps(net, fused, torch.randn(2, 3, 40, 56))
        assert calls == ["refused"] * 2  # once each convolution, not once a call

    def test_too_little_memory_is_no_missing_kernel(self, calls, monkeypatch):
        def refuse(*args):
            raise torch.cuda.OutOfMemoryError("too little")

        fused = fuse_convolutions(lived_in(Net()))
        monkeypatch.setattr(torch, "cudnn_convolution_relu", refuse)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            fused(torch.randn(2, 3, 40, 56))


def test_weights_can_move_to_another_device():
    """What is made in inference mode breaks there."""
    with torch.inference_mode(False):
        fused = fuse_convolutions(lived_in(Net()))
    tensors = [*fused.parameters(), *fused.buffers()]
    assert tensors
    assert not any(tensor.is_inference() for tensor in tensors)


def test_original_is_left_alone():
    net = lived_in(Net())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fuse_convolutions(net)
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
    [lived_in(Choosy()), lived_in(Undecided()), hooked(), nn.Sequential(nn.Conv2d(3, 4, 3))],
    ids=["another size", "branches", "hooks", "nothing follows"],
)
def test_stays_as_it_is_where_it_cannot_be_fused(net, capfd):
    assert fuse_convolutions(net) is net
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["resnext50_32x4d", "skad_nano"])  # bottleneck and basic blocks
def test_backbones(name):
    weights = "pretrained" if name == "skad_nano" else None
    plain = load_backbone(name, weights, (2, 3), CPU)
    fused = load_backbone(name, weights, (2, 3), CPU, fuse=True)
    assert len(norms(plain)) > 5
    assert norms(fused) == []
    assert relus(fused).count(True) >= 9
    # The fingerprint is that of the weights as they came.
    assert fused.digest == plain.digest
    pixels = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        for a, b in zip(plain(pixels), fused(pixels), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(a.abs().max()))


@pytest.mark.parametrize(
    ("name", "activation"), [("regnety_002", nn.ReLU), ("efficientnet_b0", nn.SiLU)]
)
def test_norms_that_apply_an_activation(name, activation):
    """timm's BatchNormAct2d: the norm goes into the weights, the activation is not lost."""
    model = import_timm().create_model(name, features_only=True, out_indices=(1, 2))
    net = lived_in(model)
    names = list(net.state_dict())
    fused = fuse_convolutions(net)
    assert norms(fused) == []
    assert any(relus(fused)) == (activation is nn.ReLU)
    assert sum(isinstance(module, nn.SiLU) for module in fused.modules()) == sum(
        isinstance(module, nn.SiLU) for module in net.modules()
    )
    assert list(net.state_dict()) == names
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for a, b in zip(net(image), fused(image), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(a.abs().max()))


def test_watched_norms_that_apply_an_activation_stay():
    net = lived_in(import_timm().create_model("regnety_002", features_only=True, out_indices=(1,)))
    watched = net.stem.bn
    watched.register_forward_hook(lambda *args: None)
    assert [type(norm) for norm in norms(fuse_convolutions(net))] == [type(watched)]


def test_training_gets_the_norms():
    """What is fused cannot be trained: a copy for training comes from a network that is not."""
    trained = load_backbone("resnet18", None, (1, 2, 3), CPU).trainable_copy()
    assert len(norms(trained)) > 5


def test_transformers_have_nothing_to_fuse():
    model = import_timm().create_model("vit_tiny_patch16_224", features_only=True).eval()
    assert fuse_convolutions(model) is model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_maps_that_are_not_finite_leave_the_network_as_it_is(value):
    net = Net().eval().requires_grad_(False)
    net.conv1.weight.fill_(value)
    net.bn1.weight.fill_(1e30)
    assert fuse_convolutions(net) is net
