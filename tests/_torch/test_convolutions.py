"""Gradients by products are torch's; what does not fit is left alone."""

import pytest
import torch
from torch import nn

from skad._torch import convolutions as _convolutions
from skad._torch.convolutions import pin_convolutions, use_matmul_gradients, weight_gradient

SHAPES = [  # kernel, stride, padding, grid
    ((3, 3), (1, 1), (1, 1), (5, 7)),
    ((3, 3), (2, 2), (1, 1), (5, 8)),
    ((1, 1), (2, 2), (0, 0), (5, 6)),
    ((1, 1), (1, 1), (0, 0), (3, 3)),
    ((2, 3), (3, 2), (0, 2), (7, 6)),
]


@pytest.fixture(autouse=True)
def few_channels(monkeypatch):
    monkeypatch.setattr(_convolutions, "_MIN_CHANNELS", 4)


def gradients(network, x):
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = network(x)
    weighted = torch.arange(y.numel(), dtype=torch.float64).sin().reshape(y.shape).to(y)
    found = torch.autograd.grad((y * weighted).sum(), [x, *network.parameters()])
    return [y.detach(), *found]


@pytest.mark.parametrize("window_bytes", [1, 10**6], ids=["image by image", "at once"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize(("side", "stride", "padding", "grid"), SHAPES)
def test_gradients_are_those_of_torch(
    side, stride, padding, grid, kind, layout, window_bytes, monkeypatch
):
    monkeypatch.setattr(_convolutions, "_WINDOW_BYTES", window_bytes)
    torch.manual_seed(0)
    module = kind(5, 6, side, stride, padding, bias=False).double().to(memory_format=layout)
    x = torch.randn(3, 5, *grid, dtype=torch.float64).to(memory_format=layout)
    expected = gradients(module, x)
    use_matmul_gradients(module)
    assert type(module) is not kind
    torch.testing.assert_close(gradients(module, x), expected)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_autocast(kind):
    """Rounded to bfloat16 once; the weights' gradients, sums over all images, are not even that."""
    torch.manual_seed(0)
    module = kind(8, 8, 3, bias=False)
    x = torch.randn(64, 8, 9, 9).relu()
    exact = gradients(module, x)
    use_matmul_gradients(module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(module, x)
    assert [each.dtype for each in found] == [torch.bfloat16, torch.float32, torch.float32]
    for each, reference in zip(found, exact, strict=True):
        error = (each.float() - reference).abs().max() / reference.abs().max()
        assert 0 < error < 0.02


def test_many_small_parts_are_not_rounded_one_by_one(monkeypatch):
    """In bfloat16, a sum of 512 equal parts would stop growing at 256 of them."""
    monkeypatch.setattr(_convolutions, "_WINDOW_BYTES", 1)
    x = torch.ones(512, 1, 1, 1, dtype=torch.bfloat16)
    found = weight_gradient(x, x, (1, 1), (1, 1), (0, 0))
    assert found.dtype == torch.float32
    assert found.item() == 512


def test_what_needs_no_gradient_gets_none():
    module = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.Conv2d(4, 4, 3, bias=False))
    use_matmul_gradients(module)
    module[1].requires_grad_(False)
    x = torch.randn(2, 4, 6, 6)
    module(x).sum().backward()
    assert module[0].weight.grad is not None
    assert module[1].weight.grad is None
    assert x.grad is None


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(3, 8, 3, bias=False),
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 3, groups=2, bias=False),
        nn.Conv2d(8, 8, 3, dilation=2, bias=False),
        nn.Conv2d(8, 8, 3, padding="same", bias=False),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", bias=False),
        nn.ConvTranspose2d(8, 8, 3, 2, output_padding=1, bias=False),
        type("Own", (nn.Conv2d,), {})(8, 8, 3, bias=False),
    ],
    ids=["thin", "bias", "groups", "dilated", "same", "reflect", "output padding", "own class"],
)
def test_what_does_not_fit_stays(module):
    kind = type(module)
    use_matmul_gradients(module)
    assert type(module) is kind


def test_pinned_convolutions_take_matmul_gradients_too():
    module = nn.Sequential(nn.Conv2d(8, 8, 3, bias=False))
    x = torch.randn(2, 8, 6, 6)
    expected = gradients(module, x)
    pin_convolutions(module)
    use_matmul_gradients(module)
    assert list(module.state_dict()) == ["0.weight"]
    torch.testing.assert_close(gradients(module, x), expected, rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_still_takes_an_output_size():
    module = nn.ConvTranspose2d(8, 8, 2, 2, bias=False)
    use_matmul_gradients(module)
    assert module(torch.randn(1, 8, 3, 3), output_size=[7, 7]).shape == (1, 8, 7, 7)
