"""AdamP as kernels alone, beside the package's."""

import copy

import pytest
import torch
from adamp import AdamP
from torch import nn

from skad._torch.capturable_adamp import CapturableAdamP


def make_network(scale=1.0):
    """Matrices, a bias and a convolution: all shapes that a projection tells apart."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5), nn.Linear(5, 2))
    for parameter in network.parameters():
        parameter.data.mul_(scale)
    return network


def train(network, optimizer, radial, steps=8):
    """Steps whose gradients point along the weights, or hardly at all."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.grad = noise
                continue
            flat = parameter.data.reshape(len(parameter), -1)
            rows = noise.reshape(len(parameter), -1)
            along = (rows * flat).sum(1, keepdim=True) / flat.square().sum(1, keepdim=True) * flat
            parameter.grad = (rows - (1 - radial) * along).reshape(parameter.shape)
        optimizer.step()
    return [parameter.detach().clone() for parameter in network.parameters()]


@pytest.mark.parametrize("radial", [0.0, 1.0, 0.02], ids=["projected", "as it is", "hardly"])
@pytest.mark.parametrize(
    "settings", [{}, {"weight_decay": 0.1}, {"nesterov": True}, {"wd_ratio": 0.5, "delta": 0.3}]
)
def test_same_updates_as_the_package(radial, settings):
    network = make_network()
    other = copy.deepcopy(network)
    settings = {"weight_decay": 1e-2, **settings}
    expected = train(other, AdamP(other.parameters(), lr=1e-2, **settings), radial)
    found = train(network, CapturableAdamP(network.parameters(), lr=1e-2, **settings), radial)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_projection_makes_a_difference():
    """Else the test above would compare two plain Adams."""
    ends = [
        train(network, CapturableAdamP(network.parameters(), lr=1e-2, delta=delta), 0.0)
        for network, delta in ((make_network(), 0.1), (make_network(), 0.0))
    ]
    assert not torch.allclose(ends[0][0], ends[1][0], rtol=1e-3)


def test_layers_are_projected_where_channels_are_not():
    """The gradient is along the weights in every channel, once up and once down."""
    ends = []
    for kind in (AdamP, CapturableAdamP):
        weight = nn.Parameter(torch.ones(2, 8))
        optimizer = kind([weight], lr=0.1)
        for _ in range(3):
            weight.grad = torch.cat([weight.data[:1], -weight.data[1:]])
            weight.grad[1] *= weight.data[0].square().sum() / weight.data[1].square().sum()
            optimizer.step()
        ends.append(weight.detach())
    torch.testing.assert_close(*ends)


def test_schedulers_write_the_rate_where_it_is_read():
    rates = []
    for kind in (AdamP, CapturableAdamP):
        network = make_network()
        optimizer = kind(network.parameters(), lr=0.1)
        before = optimizer.param_groups[0]["lr"]
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
        seen = []
        for _ in range(5):
            train(network, optimizer, 1.0, steps=1)
            schedule.step()
            seen.append(float(optimizer.param_groups[0]["lr"]))
        rates.append(seen)
    assert optimizer.param_groups[0]["lr"] is before
    assert rates[1] == pytest.approx(rates[0], rel=1e-12, abs=1e-15)


def test_parameters_without_a_gradient_stay():
    network = make_network()
    before = copy.deepcopy(network.state_dict())
    CapturableAdamP(network.parameters(), lr=0.1, weight_decay=0.1).step()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
