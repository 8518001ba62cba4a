"""ReContrast's network: sizes, initialisation, and who sees what."""

import pytest
import torch
from torch import nn

from skad._features import load_backbone
from skad._features.backbones import _create
from skad._learning.recontrast_network import (
    DecoderDesign,
    ReContrastNetwork,
    anomaly_map,
    build_network,
    decoder_design,
)

CPU = torch.device("cpu")
# Millions of parameters as published, of ReContrast and of reverse distillation, and those of a
# convolution that the authors' code never calls.
PUBLISHED = {
    "wide_resnet50_2": (144.7, 117.1, 8.39),
    "resnet50": (74.9, 63.6, 8.39),
    "resnet18": (21.6, 18.7, 0.53),
}


def n_millions(*modules):
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


def body_of(name):
    """A backbone without numbers, and the channels of its layers."""
    with torch.device("meta"):
        body = _create(name, (1, 2, 3))
    return body, body.feature_info.channels()


def nano(pairs="cross", seed=0):
    frozen = load_backbone("skad_nano", "pretrained", (1, 2, 3), CPU)
    design = decoder_design(frozen.body, frozen.channels)
    generator = torch.Generator().manual_seed(seed)
    return build_network(frozen, frozen.trainable_copy(), design, pairs, generator)


def pixels(n=2, size=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, size, size, 3), generator=generator, dtype=torch.uint8)


class TestDesign:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("resnet18", DecoderDesign((64, 128, 256), (2, 2, 2), 1)),
            ("resnet34", DecoderDesign((64, 128, 256), (3, 4, 6), 1)),
            ("resnext50_32x4d", DecoderDesign((256, 512, 1024), (3, 4, 6), 4, 2.0, 32)),
            ("wide_resnet50_2", DecoderDesign((256, 512, 1024), (3, 4, 6), 4, 2.0)),
            ("skad_nano", DecoderDesign((32, 64, 128), (1, 2, 2), 1)),
        ],
    )
    def test_of_resnets(self, name, expected):
        assert decoder_design(*body_of(name)) == expected

    @pytest.mark.parametrize(
        ("name", "channels", "expansion"),
        [
            ("regnetx_002", (24, 56, 152), 1),
            ("efficientnet_b0", (24, 40, 112), 1),
            ("vgg11", (128, 256, 512), 1),
            ("res2net50_26w_4s", (256, 512, 1024), 4),
            ("densenet121", (256, 512, 1024), 4),
        ],
    )
    def test_of_other_networks(self, name, channels, expansion):
        generic = DecoderDesign(channels, (2, 2, 2), expansion, signed=True)
        assert decoder_design(*body_of(name)) == generic

    def test_of_stages_that_only_have_the_names_of_a_resnets(self):
        body = nn.Module()
        for i in (1, 2, 3):
            body.add_module(f"layer{i}", nn.Sequential(nn.Conv2d(8, 8, 3)))
        assert decoder_design(body, (8, 16, 32)).signed

    def test_blocks_of_the_bottleneck(self):
        assert DecoderDesign((64, 128, 256), (2, 2, 2), 1).n_bottleneck_blocks == 2
        assert DecoderDesign((256, 512, 1024), (3, 4, 23), 4).n_bottleneck_blocks == 3


class TestSizes:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_parameters_are_the_published_ones(self, name):
        recontrast, rd4ad, dead = PUBLISHED[name]
        body, channels = body_of(name)
        design = decoder_design(body, channels)
        with torch.device("meta"):
            cross = ReContrastNetwork(body, None, design, "cross")
            own = ReContrastNetwork(body, None, design, "own")
        encoder = n_millions(body)
        assert n_millions(cross) + 2 * encoder + dead == pytest.approx(recontrast, abs=0.06)
        assert n_millions(own) + encoder + dead == pytest.approx(rd4ad, abs=0.06)

    def test_shapes_at_256_pixels(self):
        design = DecoderDesign((256, 512, 1024), (3, 4, 6), 4, 2.0)
        shapes = [(256, 64, 64), (512, 32, 32), (1024, 16, 16)]
        with torch.device("meta"):
            network = ReContrastNetwork(nn.Identity(), None, design, "own")
            inner = network.bottleneck([torch.empty(1, *shape) for shape in shapes])
            assert inner.shape == (1, 2048, 8, 8)
            assert [tuple(y.shape[1:]) for y in network.decoder(inner)] == shapes

    @pytest.mark.parametrize(
        ("channels", "millions"),
        [((24, 40, 112), 2.9), ((40, 80, 160), 6.1), ((256, 512, 1024), 43)],
    )
    def test_of_a_generic_decoder(self, channels, millions):
        design = decoder_design(nn.Identity(), channels)
        shapes = [(n, 64 // 2**k, 64 // 2**k) for k, n in enumerate(channels)]
        with torch.device("meta"):
            network = ReContrastNetwork(nn.Identity(), None, design, "cross")
            inner = network.bottleneck([torch.empty(1, *shape) for shape in shapes])
            assert [tuple(y.shape[1:]) for y in network.decoder(inner)] == shapes
        assert n_millions(network) == pytest.approx(millions, rel=0.02)

    def test_groups_of_the_encoder_are_kept_on_the_way_up(self):
        with torch.device("meta"):
            network = ReContrastNetwork(
                nn.Identity(), None, DecoderDesign((256, 512, 1024), (3, 4, 6), 4, 2.0, 32), "own"
            )
        up = [m for m in network.decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
        # In each stage the one inside the block has groups, the shortcut has none.
        assert [m.groups for m in up] == [32, 1] * 3

    def test_only_heads_have_biases(self):
        with_bias = {
            name.split(".")[0]
            for name, module in nano().named_modules()
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
            and module.bias is not None
            and not name.startswith("encoder")
        }
        assert with_bias == {"heads_frozen", "heads_trained"}


class TestInitialisation:
    def test_convolutions_and_transposed_ones(self):
        network = nano()
        convolution = network.decoder.stages[0][0].body[3].weight  # 128 x 128 x 3 x 3
        assert convolution.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
        transposed = (
            network.decoder.stages[0][0].body[0].weight
        )  # 256 x 128 x 2 x 2, torch's default
        assert transposed.abs().max().item() <= (128 * 4) ** -0.5
        assert transposed.std().item() == pytest.approx((128 * 4 * 3) ** -0.5, rel=0.02)
        assert network.heads_frozen[0].bias.abs().max().item() <= 32**-0.5

    def test_is_seeded_and_leaves_the_global_generator_alone(self):
        before = torch.get_rng_state()
        first, second, third = nano(seed=0), nano(seed=0), nano(seed=1)
        assert torch.equal(torch.get_rng_state(), before)
        states = [network.state_dict() for network in (first, second, third)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        name = "decoder.stages.0.0.body.0.weight"
        assert not torch.equal(states[0][name], states[2][name])

    def test_the_adapting_encoder_starts_as_the_frozen_one(self):
        network = nano().eval()
        targets, _ = network(pixels())
        for frozen, trained in zip(targets[:3], targets[3:], strict=True):
            assert torch.equal(frozen, trained)


class TestForward:
    def test_heads_see_the_other_encoders_half(self):
        network = nano()
        network.encoder.body.model.conv1[0].weight.data.mul_(1.5)  # now they differ
        network.eval()
        x = pixels()
        targets, outputs = network(x)
        with torch.no_grad():
            frozen, trained = network.frozen(x), network.encoder(x)
            from_trained = network.decoder(network.bottleneck(trained))
            from_frozen = network.decoder(network.bottleneck(frozen))
        for k in range(3):
            torch.testing.assert_close(targets[k], frozen[k])
            torch.testing.assert_close(targets[3 + k], trained[k])
            torch.testing.assert_close(
                outputs[k], network.heads_frozen[k](from_trained[k]), atol=1e-4, rtol=1e-4
            )
            torch.testing.assert_close(
                outputs[3 + k], network.heads_trained[k](from_frozen[k]), atol=1e-4, rtol=1e-4
            )

    def test_both_halves_share_the_statistics_of_a_batch(self):
        network = nano().train()
        network(pixels(3))
        norm = network.bottleneck.layer2[1]
        assert norm.num_batches_tracked == 1

    def test_train_does_not_reach_the_frozen_encoder(self):
        network = nano().train()
        network(pixels())
        assert not any(module.training for module in network.frozen.modules())
        assert not any(p.requires_grad for p in network.frozen.parameters())
        assert not any("frozen.body" in name for name in network.state_dict())

    def test_the_adapting_encoder_learns_from_its_own_half_only(self):
        network = nano().train()
        targets, outputs = network(pixels())
        parameter = network.encoder.body.model.conv1[0].weight

        def reaches(loss):
            (grad,) = torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)
            return grad is not None and bool(grad.abs().sum() > 0)

        assert reaches(outputs[0].square().sum())
        assert targets[3].requires_grad  # a constant only by the stop-gradient of the loss
        # Frozen input reaches the encoder through the statistics of the shared batch norms alone.
        network.eval()
        targets, outputs = network(pixels())
        assert not reaches(outputs[3].square().sum())

    def test_own_pairs(self):
        network = nano(pairs="own").eval()
        targets, outputs = network(pixels())
        assert len(targets) == len(outputs) == 3
        assert [t.shape for t in targets] == [o.shape for o in outputs]


class TestSigns:
    @pytest.mark.parametrize("signed", [False, True])
    def test_only_what_may_be_negative_is_reconstructed_as_such(self, signed):
        design = DecoderDesign((8, 16, 32), (2, 1, 2), 1, signed=signed)
        generator = torch.Generator().manual_seed(0)
        network = build_network(nn.Identity(), None, design, "own", generator).eval()
        maps = network.decoder(torch.rand(1, 64, 1, 1, generator=generator))
        assert [bool((layer < 0).any()) for layer in maps] == [signed] * 3

    def test_of_a_resnet_none_is(self):
        frozen = load_backbone("skad_nano", "pretrained", (1, 2, 3), CPU)
        assert not decoder_design(frozen.body, frozen.channels).signed


def test_maps_of_equal_features_are_zero():
    features = [torch.rand(2, 4, 8 // 2**k, 8 // 2**k) for k in range(3)]
    maps = anomaly_map(features, features, 32)
    assert maps.shape == (2, 32, 32)
    assert maps.abs().max() < 1e-6
    opposite = anomaly_map(features, [-f for f in features], 32)
    torch.testing.assert_close(opposite, torch.full((2, 32, 32), 6.0))
