"""Batch norms of an encoder that adapts to one kind of part."""

import pytest
import torch
from torch import nn

from skad._learning.stable_norm import StableBatchNorm2d, make_stable, set_norm_mode


def make_norm(n=3, **stats) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(n)
    for name, value in stats.items():
        getattr(norm, name).copy_(torch.tensor(value))
    return norm


def converted(norm, **kwargs):
    StableBatchNorm2d.convert(norm, **kwargs)
    return norm


@pytest.fixture
def x():
    return torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) + 2


def test_live_channels_are_ordinary(x):
    plain, stable = make_norm(), converted(make_norm())
    torch.testing.assert_close(stable(x), plain(x))
    torch.testing.assert_close(stable.running_mean, plain.running_mean)
    torch.testing.assert_close(stable.running_var, plain.running_var)


def test_live_channels_have_the_ordinary_gradient(x):
    grads = []
    for norm in (make_norm(), converted(make_norm())):
        leaf = x.clone().requires_grad_()
        norm(leaf).square().mul(torch.arange(5.0)).sum().backward()
        grads += [(leaf.grad, norm.weight.grad, norm.bias.grad)]
    for plain, stable in zip(*grads, strict=True):
        torch.testing.assert_close(stable, plain, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("pretrained", "variance"), [(True, 4.0), (False, 5e-4)])
def test_dead_channels_keep_their_scale(pretrained, variance):
    norm = converted(make_norm(1, running_var=[4.0]), pretrained=pretrained)
    x = 0.5 + 1e-3 * torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(norm(x), (x - x.mean()) / (variance + norm.eps) ** 0.5)


def test_the_gradient_of_a_dead_channel_passes_through_the_mean_alone():
    norm = converted(make_norm(1, running_var=[4.0]))
    x = torch.tensor([1.0, 1.001]).reshape(2, 1, 1, 1).requires_grad_()
    (norm(x) * torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1)).sum().backward()
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([0.25, -0.25]), atol=1e-5, rtol=0)


def test_a_constant_channel_is_finite():
    norm = converted(make_norm(1, running_var=[0.0]))
    x = torch.full((2, 1, 3, 3), 0.25, requires_grad=True)
    norm(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_evaluation_is_ordinary(x):
    plain, stable = make_norm().eval(), converted(make_norm()).eval()
    assert torch.equal(stable(x), plain(x))


def test_state_dict_stays_the_same():
    assert converted(make_norm()).state_dict().keys() == make_norm().state_dict().keys()


@pytest.mark.parametrize(("mode", "training"), [("train", True), ("eval", False), ("stable", True)])
def test_modes(mode, training):
    encoder = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout())
    if mode == "stable":
        make_stable(encoder)
    set_norm_mode(encoder.eval(), mode)
    assert encoder[1].training is training
    assert not encoder[2].training  # it would draw from the global generator
    assert encoder[1].weight.requires_grad


class NormAndActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def __init__(self, n):
        super().__init__(n)
        self.drop, self.act = nn.Identity(), nn.SiLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


def test_an_activation_of_the_norm_stays(x):
    encoder = nn.Sequential(NormAndActivation(3))
    make_stable(encoder)
    plain = NormAndActivation(3)
    torch.testing.assert_close(encoder(x), plain(x))
    assert torch.equal(
        encoder.eval()(x),
        encoder[0].act(
            nn.functional.batch_norm(
                x,
                encoder[0].running_mean,
                encoder[0].running_var,
                encoder[0].weight,
                encoder[0].bias,
            )
        ),
    )


class Doubling(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "norm",
    [Doubling(3), nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, track_running_stats=False)],
)
def test_what_would_be_lost_is_named(norm):
    encoder = nn.Sequential(nn.BatchNorm2d(3), norm)
    with pytest.raises(ValueError, match=rf"layer '1' .* a {type(norm).__name__}: use bn=\"eval\""):
        make_stable(encoder)
    assert type(encoder[0]) is nn.BatchNorm2d  # nothing has been converted
