"""Convolutions that are pinned to one kernel compute what torch's do; what does not fit stays."""

import pytest
import torch
from torch import nn

from skad._torch.invariance import is_plain, pin_convolutions, unpinned

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


def gradients(network, x):
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = network(x)
    weighted = torch.arange(y.numel(), dtype=torch.float64).sin().reshape(y.shape).to(y)
    found = torch.autograd.grad((y * weighted).sum(), [x, *network.parameters()])
    return [y.detach(), *found]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "settings",
    [{}, {"stride": 2, "padding": 1}, {"groups": 2, "bias": False}, {"dilation": 2, "padding": 3}],
    ids=["plain", "stride", "groups", "dilated"],
)
def test_maps_and_gradients_are_those_of_torch(settings, layout):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 6, 3, **settings)).to(memory_format=layout)
    x = torch.randn(3, 4, 8, 9).to(memory_format=layout)
    names, expected = list(module.state_dict()), gradients(module, x)
    pin_convolutions(module)
    assert type(module[0]) is not nn.Conv2d
    assert list(module.state_dict()) == names
    torch.testing.assert_close(gradients(module, x), expected, rtol=1e-4, atol=1e-5)


def test_an_image_alone_goes_to_the_kernel_of_a_batch(monkeypatch):
    calls = []
    convolve = torch.mkldnn_convolution
    monkeypatch.setattr(
        torch, "mkldnn_convolution", lambda x, *args: calls.append(len(x)) or convolve(x, *args)
    )
    module = nn.Sequential(nn.Conv2d(4, 6, 1))
    pin_convolutions(module)
    for n in (1, 5):
        module(torch.randn(n, 4, 3, 3))
    assert calls == [1, 5]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_go_where_torch_sends_them(dtype):
    module = nn.Sequential(nn.Conv2d(4, 6, 3)).to(dtype)
    x = torch.randn(2, 4, 5, 5).to(dtype)
    expected = module(x)
    pin_convolutions(module)
    assert torch.equal(module(x), expected)


def test_autocast_still_casts():
    module = nn.Sequential(nn.Conv2d(4, 6, 3))
    pin_convolutions(module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(torch.randn(2, 4, 5, 5)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 3),
        type("Own", (nn.Conv2d,), {})(4, 4, 3),
    ],
    ids=["same", "reflect", "transposed", "own class"],
)
def test_what_is_more_than_its_weights_stays(module):
    kind = type(module)
    assert not is_plain(module)
    pin_convolutions(module)
    assert type(module) is kind


def test_convolutions_are_given_back():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()))
    pin_convolutions(body)
    assert unpinned(body) is body
    assert [type(module) for module in body.modules() if hasattr(module, "weight")] == [
        nn.Conv2d,
        nn.Conv2d,
    ]
