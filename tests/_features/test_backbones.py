"""Backbones: names, layers, the shared cache, layouts, random weights."""

import copy
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from itertools import count

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import skad._features.backbones as home
from skad._features import feature_net, weight_files
from skad._features.backbones import load_backbone
from skad._features.feature_net import FeatureNet

CPU = torch.device("cpu")
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))


def test_layers_have_the_strides_of_the_papers():
    net = load_backbone("resnet10t", None, (1, 2, 3), CPU)
    assert list(net.strides) == [4, 8, 16]
    assert [tuple(layer.shape) for layer in net(PIXELS)] == [
        (2, 64, 16, 16),
        (2, 128, 8, 8),
        (2, 256, 4, 4),
    ]


def test_extraction_stops_at_the_last_layer():
    names = load_backbone("resnet10t", None, (1, 2), CPU).state_dict()
    assert not any("layer3" in name for name in names)


def test_uint8_and_float_pixels_are_one():
    net = load_backbone("resnet10t", None, (2,), CPU)
    as_float = (PIXELS.numpy().astype(np.float32)) / np.float32(255)
    assert torch.equal(net(PIXELS)[0], net(torch.from_numpy(as_float))[0])


def test_channels_last_networks_are_turned():
    net = load_backbone("swin_tiny_patch4_window7_224", None, (1, 2), CPU)
    maps = net(PIXELS.repeat(1, 4, 4, 1)[:1, :224, :224])
    assert [tuple(layer.shape) for layer in maps] == [(1, 192, 28, 28), (1, 384, 14, 14)]


def test_random_weights_are_always_the_same_and_frozen():
    net = load_backbone("resnet10t", None, (2,), CPU)
    other = load_backbone("resnet10t", None, (2, 3), CPU)
    weight = "layer2.0.conv1.weight"
    assert torch.equal(net.body.state_dict()[weight], other.body.state_dict()[weight])
    assert not any(p.requires_grad for p in net.parameters())
    assert not net.training


@pytest.fixture
def built(monkeypatch):
    """What was built during the test."""
    built, build = [], home._build
    monkeypatch.setattr(home, "_build", lambda *a: (built.append(a[0]), build(*a))[1])
    return built


def test_built_once_for_all_threads(built):
    nets = []
    threads = [
        threading.Thread(target=lambda: nets.append(load_backbone("resnet14t", None, (1,), CPU)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert all(net is nets[0] for net in nets)


class TestMemory:
    def test_what_somebody_holds_is_never_built_again(self, built):
        networks = [nn.Sequential(nn.Conv2d(3, n, 1)) for n in range(1, 8)]
        held = [load_backbone(network, None, (), CPU) for network in networks]
        again = [load_backbone(network, None, (), CPU) for network in networks]
        assert all(a is b for a, b in zip(again, held, strict=True))
        assert len(built) == len(networks)

    def test_what_nobody_holds_goes(self, built):
        networks = [nn.Sequential(nn.Conv2d(3, n, 2)) for n in range(1, 8)]
        for network in networks:
            load_backbone(network, None, (), CPU)
        for _ in range(10):  # nothing is collected while another thread of this process does so
            gc.collect()
            if len(home._alive) == 4:
                break
            time.sleep(0.1)
        assert len(home._latest) == len(home._alive) == 4
        load_backbone(networks[-4], None, (), CPU)
        assert len(built) == len(networks)


class Own(nn.Module):
    def __init__(self, extra=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.extra = extra

    def forward(self, x):
        return [self.extra(self.conv(x)) if callable(self.extra) else self.conv(x)]


class TestOwnNetworks:
    def test_copies_share_one(self, built):
        network = Own(nn.ReLU())
        net = load_backbone(network, None, (), CPU)
        assert load_backbone(copy.deepcopy(network), "pretrained", (2,), CPU) is net
        assert load_backbone(network.train().requires_grad_(True), None, (), CPU) is net
        assert len(built) == 1

    @pytest.mark.parametrize(
        "change",
        [
            lambda network: setattr(network, "extra", nn.Tanh()),
            lambda network: network.conv.weight.data.add_(1),
            lambda network: setattr(network.conv, "padding_mode", "reflect"),
            lambda network: network.register_forward_hook(lambda *a: [a[2][0] * 2]),
            lambda network: network.register_buffer("table", torch.ones(1), persistent=False),
        ],
        ids=["activation", "weights", "padding", "hook", "buffer"],
    )
    def test_a_change_in_place_is_noticed(self, change):
        network = Own(nn.ReLU())
        net = load_backbone(network, None, (), CPU)
        change(network)
        changed = load_backbone(network, None, (), CPU)
        assert changed is not net
        expected = copy.deepcopy(network).eval()(torch.zeros(1, 3, 8, 8))[0]
        torch.testing.assert_close(changed.body(torch.zeros(1, 3, 8, 8))[0], expected)

    def test_without_parameters(self):
        nets = [
            load_backbone(nn.Sequential(pool), None, (), CPU)
            for pool in (nn.MaxPool2d(4), nn.AvgPool2d(4), nn.MaxPool2d(4))
        ]
        assert nets[0] is nets[2]
        assert nets[0] is not nets[1]

    @pytest.mark.parametrize("size", [None, 224, 50])
    def test_where_a_description_ends_outputs_decide(self, size, built):
        """One that takes images of its own size alone is asked about those, or known by itself alone."""

        class Lookup:
            """Says nothing about itself."""

            __slots__ = ()

            def __deepcopy__(self, memo):
                return self

            def __call__(self, x):
                if size not in (None, x.shape[-1] + 2):
                    raise RuntimeError("another size")
                return x * factors[id(self)]

        tables = [Lookup(), Lookup(), Lookup()]
        factors = dict(zip(map(id, tables), (1, 2, 1), strict=True))
        one, other, same = (Own(table) for table in tables)
        other.load_state_dict(one.state_dict())
        same.load_state_dict(one.state_dict())
        nets = [load_backbone(network, None, (), CPU) for network in (one, other, same, one)]
        assert nets[0] is not nets[1]
        assert (nets[0] is nets[2]) == (size != 50)
        assert nets[0] is nets[3]

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (lambda x: x, r"one tensor of shape \(1, 4, 6, 6\).*\[x\] instead of x"),
            (lambda x: None, "returned None"),
            (lambda x: [x, None], "a list of NoneType, Tensor"),
            (lambda x: 3, "returned a int"),
        ],
    )
    def test_answers_that_are_no_maps(self, answer, message):
        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 3)

            def forward(self, x):
                return answer(self.conv(x))

        net = load_backbone(Network(), None, (), CPU)
        with pytest.raises(ValueError, match=message):
            net(PIXELS[:1, :8, :8])

    def test_a_dictionary_of_maps(self):
        net = load_backbone(nn.ModuleDict({"a": nn.Identity()}), None, (), CPU)
        net.body.forward = lambda x: {"shallow": x, "deep": x[..., ::2, ::2]}
        assert [layer.shape[-1] for layer in net(PIXELS)] == [64, 32]


class TestIdentity:
    def test_a_model_of_timm_needs_none(self):
        assert load_backbone("resnet10t", None, (1,), CPU).identity(32) is None

    def test_it_is_asked_once(self):
        net = load_backbone(Own(), None, (), CPU)
        assert net.identity(32) is net.identity(32)
        assert net.identity(32).difference(net.identity(40)) == "outputs"

    def test_fused_or_not_and_with_one_thread_or_many(self):
        network = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), Own0())
        n_threads = torch.get_num_threads()
        try:
            identities = []
            for n in (1, 4):
                torch.set_num_threads(n)
                for fuse in (True, False):
                    net = home._build(network, None, (), fuse)
                    identities.append(net.identity(48))
        finally:
            torch.set_num_threads(n_threads)
        assert all(identity.difference(identities[0]) is None for identity in identities)

    def test_randomness_is_refused(self):
        net = load_backbone(Own(lambda x: nn.functional.dropout(x, 0.5)), None, (), CPU)
        with pytest.raises(ValueError, match="answers one image in two ways"):
            net.identity(32)

    def test_a_size_that_it_cannot_take(self):
        net = load_backbone(Own(lambda x: x.view(1, 4, 7, 7)), None, (), CPU)
        with pytest.raises(ValueError, match="cannot take images of 32 x 32 pixels: RuntimeError"):
            net.identity(32)


class Own0(nn.Module):
    def forward(self, x):
        return [x]


class Environment(nn.Module):
    """Asks the process, of which no description tells."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return [self.norm(self.conv(x)) * float(os.environ["SKAD_TEST_FACTOR"])]


class TestWhatANetworkReadsFromOutside:
    @pytest.mark.parametrize("fuse", [False, True])
    def test_what_answers_otherwise_is_built_anew(self, monkeypatch, built, fuse):
        """Fused, its first factor is part of it."""
        network, layers = Environment(), []
        for factor in ("1", "1", "2", "1"):
            monkeypatch.setenv("SKAD_TEST_FACTOR", factor)
            net = load_backbone(network, None, (), CPU, fuse=fuse, image_size=32)
            net.identity(32)
            layers.append(net(PIXELS)[0])
        assert len(built) == 3
        assert torch.equal(layers[0], layers[1])
        torch.testing.assert_close(layers[2], 2 * layers[0])
        assert torch.equal(layers[3], layers[0])

    def test_it_is_asked_without_leaving_a_trace(self, monkeypatch, built):
        monkeypatch.setenv("SKAD_TEST_FACTOR", "1")
        network = Environment().train()
        network.register_buffer("seen", torch.zeros(1))
        network.register_forward_hook(lambda module, *_: module.seen.add_(1) and None)
        state = copy.deepcopy(network.state_dict())
        for _ in range(3):
            load_backbone(network, None, (), CPU, image_size=32)
        assert len(built) == 1
        assert network.training
        assert all(parameter.requires_grad for parameter in network.parameters())
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())

    def test_large_weights_are_not_copied_to_ask(self, monkeypatch):
        monkeypatch.setenv("SKAD_TEST_FACTOR", "1")
        network = Environment()
        copied = feature_net.copied(network, shared=network.parameters())
        assert copied is not network
        assert copied.conv.weight is network.conv.weight
        assert copied.norm.running_mean is not network.norm.running_mean


class Clamped(nn.Module):
    def __init__(self, least: float):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.least = nn.Conv2d(3, 4, 3), least

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.conv(x).clamp(min=self.least)]


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def with_computed_weights():
    network = Own()
    network.conv.table = network.conv.weight * 2
    return network


class TestNetworksOfOtherKinds:
    @pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
    @pytest.mark.parametrize("compiled", ["scripted", "traced", "part"])
    def test_compiled(self, compiled):
        found = []
        for least in (0.0, -1.0):
            network = Clamped(least)
            if compiled == "traced":
                made = torch.jit.trace(network, torch.zeros(1, 3, 64, 64), strict=False)
            else:
                made = torch.jit.script(network)
            made = nn.Sequential(nn.Identity(), made) if compiled == "part" else made
            net = load_backbone(made, None, (), CPU, fuse=True, image_size=64)
            assert load_backbone(made, None, (), CPU, fuse=True, image_size=64) is net
            expected = load_backbone(network, None, (), CPU)(PIXELS)[0]
            torch.testing.assert_close(net(PIXELS)[0], expected)
            assert not any(parameter.requires_grad for parameter in net.parameters())
            assert all(parameter.requires_grad for parameter in made.parameters())
            found.append(expected)
        assert not torch.equal(*found)

    @pytest.mark.parametrize("make", [Locked, with_computed_weights])
    def test_that_cannot_be_copied(self, make):
        with pytest.raises(ValueError, match=r"cannot be copied.*\(\w+Error: .*take out of it"):
            load_backbone(make(), None, (), CPU)

    @pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
    @pytest.mark.parametrize(
        ("layer", "name"),
        [(lambda: nn.LazyConv2d(4, 3), "LazyConv2d"), (nn.LazyBatchNorm2d, "Lazy")],
    )
    def test_without_weights_yet(self, layer, name):
        with pytest.raises(
            ValueError, match=rf"layer '0\.1' .* has no weights yet \({name}.*: pass"
        ):
            load_backbone(nn.Sequential(nn.Sequential(Own0(), layer())), None, (), CPU)

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (lambda x: [x[:, :0]], r"none of them empty.*\(1, 0, 6, 6\)"),
            (lambda x: [x, x[..., :0]], r"none of them empty.*\(1, 4, 6, 0\)"),
            (lambda x: [], r"it returned \[\]"),
            (lambda x: [x, x.flatten(2)], r"\(1, 4, 36\)"),
            (lambda x: [x.flatten()] * 5000, r"^.{100,400}$"),
            (lambda x: [x, torch.fft.fft2(x)], "complex feature maps.*return real ones"),
        ],
    )
    def test_maps_that_are_of_no_use(self, answer, message):
        net = FeatureNet(nn.Conv2d(3, 4, 3))
        net.body = nn.Sequential(net.body, Answering(answer))
        with pytest.raises(ValueError, match=message):
            net(PIXELS[:1, :8, :8])

    def test_what_a_network_says_at_length_is_shortened(self):
        def wordy(x):
            raise RuntimeError("begin " + "and\nso on " * 1000 + "end")

        net = load_backbone(Own(wordy), None, (), CPU)
        with pytest.raises(ValueError, match=r"^.{1,100}RuntimeError: begin .{1,400} end$"):
            net.identity(32)


class Answering(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.forward = answer


# ---- files of weights ---------------------------------------------------------------------------------


NUMBERS = count(1)


@pytest.fixture
def file(tmp_path):
    """Weights in a file; and a function that makes others, in another file of the same size."""
    state = load_backbone("resnet10t", None, (1,), CPU).body.state_dict()

    def others(path):
        number = next(NUMBERS)
        floats = {k: v for k, v in state.items() if v.is_floating_point()}
        save_file({k: (v + number).contiguous() for k, v in floats.items()}, path)
        return path

    return others(tmp_path / "w.safetensors"), others


def digest(path):
    return load_backbone("resnet10t", path, (1,), CPU).digest


def in_place(path, source):
    with path.open("r+b") as stream:
        stream.write(source.read_bytes())


def renamed(path, source):
    os.replace(source, path)


def linked(path, source):
    path.unlink()
    path.symlink_to(source)


def linked_hard(path, source):
    path.unlink()
    os.link(source, path)


@pytest.mark.parametrize("replace", [in_place, renamed, linked, linked_hard])
@pytest.mark.parametrize("wait", [False, True])
def test_a_file_of_the_same_size_and_date_is_read_again(file, tmp_path, monkeypatch, replace, wait):
    path, others = file
    status = path.stat()
    before = digest(path)
    if wait:  # until the date of its inode tells
        clock = weight_files.time.monotonic() + 5
        monkeypatch.setattr(weight_files.time, "monotonic", lambda: clock)
        assert digest(path) == before
    source = others(tmp_path / "other.safetensors")
    assert source.stat().st_size == status.st_size
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    replace(path, source)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest(path) != before


def test_contents_within_one_tick_of_the_clock_are_told_apart(file, tmp_path, monkeypatch):
    """Nothing but the content differs."""
    path, others = file
    monkeypatch.setattr(weight_files, "_SIGNS", lambda status: (status.st_size,))
    before = digest(path)
    in_place(path, others(tmp_path / "other.safetensors"))
    assert digest(path) != before


def test_a_link_that_is_switched(file, tmp_path):
    path, others = file
    link, other = tmp_path / "current.safetensors", others(tmp_path / "other.safetensors")
    link.symlink_to(path)
    assert digest(link) == digest(path)
    link.unlink()
    link.symlink_to(other)
    assert digest(link) == digest(other) != digest(path)


def test_equal_contents_are_one_network(file, tmp_path, built):
    path, _ = file
    digest(path)
    shutil.copyfile(path, tmp_path / "copy.safetensors")
    digest(tmp_path / "copy.safetensors")
    assert len(built) == 1


def test_a_file_at_rest_is_not_read_to_be_recognised(file, monkeypatch):
    path, _ = file
    now = weight_files.time.time()
    monkeypatch.setattr(weight_files.time, "time", lambda: now + 2 * 86400)
    monkeypatch.setattr(weight_files, "_hashed", None)
    assert digest(path) == digest(path)


def test_a_file_that_is_replaced_while_it_is_read(file, tmp_path, monkeypatch):
    path, others = file
    other, read = others(tmp_path / "other.safetensors"), home.read_state_dict

    def replaced(file):
        state = read(file)
        in_place(path, other)
        return state

    monkeypatch.setattr(home, "read_state_dict", replaced)
    assert digest(path) == digest(other)


def test_pretrained_weights_on_disk_are_files_too(file, tmp_path, monkeypatch):
    path, others = file
    monkeypatch.setattr(home, "hub_file", lambda hub_id, licence: path)
    name = "resnet10t.c3_in1k"
    before = load_backbone(name, "pretrained", (1,), CPU)
    assert load_backbone(name, "pretrained", (1,), CPU) is before
    renamed(path, others(tmp_path / "other.safetensors"))
    changed = load_backbone(name, "pretrained", (1,), CPU)
    assert changed.digest != before.digest
    path.unlink()  # the cache was emptied; what is in memory goes on
    assert load_backbone(name, "pretrained", (1,), CPU) is changed


@pytest.mark.parametrize(
    ("backbone", "weights", "layers", "message"),
    [
        ("resnet_18", None, (2, 3), "Did you mean"),
        ("resnet18", "pretrained", (2, 3), r"needs its tag.*resnet18\.tv_in1k"),
        ("resnet18.nope", "pretrained", (2, 3), r"Its tags: .*resnet18\.tv_in1k"),
        ("resnet18", None, (2, 7), "last layer is 4"),
        ("resnet18", None, (-1, 2), "non-negative"),
        ("b" * 5000, None, (2,), "^.{1,300}$"),
        ("resnet18." + "b" * 5000, "pretrained", (2,), "^.{1,900}$"),
        ("resnet18", "b" * 5000, (2,), "^.{1,300}there is no such file.*name too long"),
        ("resnet18", "b/" * 5000, (2,), "^.{1,300}there is no such file.*name too long"),
        ("resnet18", None, (1,) * 5000, "^.{1,400}$"),
        ("resnet18", None, tuple(range(5000)), "^.{1,300}last layer is 4"),
    ],
)
def test_refusals(backbone, weights, layers, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(backbone, weights, layers, CPU)


def test_a_torchvision_of_another_build_does_no_harm():
    """With the operators gone, torchvision alone fails to import; through skad it succeeds."""
    code = """
import sys, torch
load = torch.ops.load_library
def refuse(path):
    raise OSError("no operators")
torch.ops.load_library = refuse
try:
    import torchvision
    sys.exit("torchvision was expected to fail")
except RuntimeError as error:
    assert "torchvision::nms" in str(error), error
from skad._features._timm import import_timm
net = import_timm().create_model("resnet10t", features_only=True)
import torchvision
print("imported", torchvision.__version__)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.startswith("imported"), result.stderr


# ---- sizes that networks are not made for ----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "option"),
    [
        ("deit_tiny_patch16_224", (96, 128), {"dynamic_img_size": True}),
        ("eva02_tiny_patch14_224", (56, 70), {"dynamic_img_size": True}),
        ("swin_tiny_patch4_window7_224", (64, 96), {"dynamic_img_size": True}),
        ("mvitv2_tiny", (96, 96), {"img_size": (96, 96)}),
    ],
)
def test_transformers_take_other_sizes(name, size, option):
    """As timm's own network with these weights, made for this size."""
    timm = home.import_timm()
    layers = (1, 2)
    net = load_backbone(name, None, layers, CPU, image_size=size)
    pixels = home.probe_image(size)
    found = net(pixels)
    assert net.digest == load_backbone(name, None, layers, CPU).digest
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        native = timm.create_model(name, features_only=True, out_indices=layers)
        theirs = timm.create_model(name, **option).eval()
    weights = getattr(native, "model", native).state_dict()
    weights = {key.replace("layers_", "layers."): value for key, value in weights.items()}
    if "img_size" in option:
        weights = sys.modules[type(theirs).__module__].checkpoint_filter_fn(weights, theirs)
    theirs.load_state_dict(weights, strict=False)
    normalised = (pixels.float() / 255 - net.mean.reshape(3)) / net.std.reshape(3)
    with torch.inference_mode():
        expected = theirs.forward_intermediates(
            normalised.permute(0, 3, 1, 2),
            indices=list(layers),
            intermediates_only=True,
            norm=False,
        )
    for ours, reference in zip(found, expected, strict=True):
        if reference.shape != ours.shape:
            reference = reference.permute(0, 3, 1, 2)
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "vit_small_patch14_dinov2"])
def test_the_final_norm_of_a_transformer(name):
    """Every layer passes through it, as timm's own network would send it."""
    timm = home.import_timm()
    net = load_backbone(name, None, (1, 2), CPU, image_size=112, final_norm=True)
    pixels = home.probe_image((112, 112))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        native = timm.create_model(
            name, features_only=True, out_indices=(1, 2), feature_cls=home._normed()
        )
        theirs = timm.create_model(name, dynamic_img_size=True).eval()
    weights = native.model.state_dict()
    theirs.load_state_dict(weights, strict=False)
    normalised = (pixels.float() / 255 - net.mean.reshape(3)) / net.std.reshape(3)
    with torch.inference_mode():
        expected = theirs.forward_intermediates(
            normalised.permute(0, 3, 1, 2), indices=[1, 2], intermediates_only=True, norm=True
        )
    for ours, reference in zip(net(pixels), expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)
    assert load_backbone(name, None, (1, 2), CPU, image_size=112) is not net


def test_one_network_of_each_size():
    first, second, again = (
        load_backbone("deit_tiny_patch16_224", None, (1, 2), CPU, image_size=size)
        for size in (96, 128, 96)
    )
    assert first is again is not second
    native = load_backbone("deit_tiny_patch16_224", None, (1, 2), CPU, image_size=224)
    assert native is load_backbone("deit_tiny_patch16_224", None, (1, 2), CPU)
    # Networks that take any size are one.
    assert load_backbone("resnet10t", None, (1,), CPU, image_size=64) is load_backbone(
        "resnet10t", None, (1,), CPU, image_size=96
    )


def test_a_size_that_the_weights_cannot_be_brought_to():
    with pytest.raises(ValueError, match=r"'levit_128s' is made for .*224 x 224.*256 x 256"):
        load_backbone("levit_128s", None, (0, 1), CPU, image_size=256)
    with pytest.raises(ValueError, match=r"'mvitv2_tiny'.*cannot be brought to 64 x 96"):
        load_backbone("mvitv2_tiny", None, (0, 1), CPU, image_size=(64, 96))
