"""A training step against the one that benchmarks/plain_recontrast.py writes out as it was published."""

import copy
import importlib

import pytest
import torch
from scripts import ROOT
from torch import nn

from skad._features.backbones import _create
from skad._features.feature_net import FeatureNet
from skad._learning import ReContrastSettings, ReContrastTraining, build_network, decoder_design


def layers(network, *kinds):
    return [module for module in network.modules() if isinstance(module, kinds)]


@pytest.fixture(scope="module")
def networks():
    """skad's network in float64, and the parts of the plain one with the same weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        plain = importlib.import_module("plain_recontrast")
    body = _create("resnet18", (1, 2, 3))
    for norm in layers(body, nn.BatchNorm2d):
        nn.init.ones_(norm.weight)  # the last of a block is 0 at first, and stops gradients
    frozen = FeatureNet(body, channels=(64, 128, 256)).double()
    design = decoder_design(frozen.body, frozen.channels)
    generator = torch.Generator().manual_seed(0)
    trained = frozen.trainable_copy().double()
    network = build_network(frozen, trained, design, "cross", generator).double()
    encoder, decoder = copy.deepcopy(trained.body), plain.Decoder().double()
    new = nn.ModuleList(m for name, m in network.named_children() if name != "encoder")
    for kinds in ((nn.Conv2d, nn.ConvTranspose2d), (nn.BatchNorm2d,)):
        for ours, theirs in zip(layers(new, *kinds), layers(decoder, *kinds), strict=True):
            theirs.load_state_dict(ours.state_dict())
    encoder.train()
    decoder.train()
    return plain, network, new, (encoder, copy.deepcopy(frozen.body).eval(), decoder)


@pytest.mark.parametrize(("n_iter", "alpha"), [(1, -1.0), (5, 1.0)])
def test_loss_and_gradients_are_the_published_ones(networks, n_iter, alpha):
    plain, network, new, theirs = networks
    for part in (network, *theirs):
        part.zero_grad()
    settings = ReContrastSettings(max_iter=20, bn="train")
    training = ReContrastTraining(network, settings, n_iter=n_iter)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(3, 64, 64, 3, generator=generator, dtype=torch.float64)
    loss = training.loss(*network(pixels))
    loss.backward()

    images = (pixels.permute(0, 3, 1, 2) - network.frozen.mean) / network.frozen.std
    targets, outputs = plain.reconstruct(*theirs[:2], theirs[2], images)
    expected = plain.mined_loss(targets[:3], outputs[:3], alpha) / 2
    expected = expected + plain.mined_loss(targets[3:], outputs[3:], alpha) / 2
    expected.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    pairs = [(network.encoder.body, theirs[0]), (new, theirs[2])]
    for ours, other in pairs:
        for kind in kinds:
            for a, b in zip(layers(ours, kind), layers(other, kind), strict=True):
                assert a.weight.grad.abs().max() > 0
                torch.testing.assert_close(a.weight.grad, b.weight.grad, rtol=1e-7, atol=1e-12)
