"""What a network of the user's own is recognised by."""

import numpy as np
import pytest
import torch

from skad._features.identity import BackboneIdentity, probe_image


def maps(seed=0, shape=(1, 8, 16, 16)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator), 100 * torch.randn(1, 2, 4, 4)]


def identity(layers, configuration="a"):
    return BackboneIdentity.of(configuration, layers)


@pytest.mark.parametrize(
    ("relative", "difference"), [(1e-5, None), (2e-4, None), (5e-3, "outputs")]
)
def test_rounding_is_no_difference(relative, difference):
    layers = maps()
    rounded = [layers[0] * (1 + relative * torch.randn(layers[0].shape)), layers[1]]
    assert identity(layers).difference(identity(rounded)) == difference


def test_a_small_layer_counts_as_much_as_a_large_one():
    layers = maps()
    assert identity(layers).difference(identity([layers[0] * 1.01, layers[1]])) == "outputs"


def test_what_lies_between_the_values_kept_is_in_the_norm():
    layers = maps()
    other = layers[0].clone()
    other.view(-1)[1::2] *= 1.5  # of 2048 values
    assert identity(layers).difference(identity([other, layers[1]])) == "outputs"


def test_shapes_and_number_of_layers():
    layers = maps()
    assert identity(layers).difference(identity(layers[:1])) == "outputs"
    turned = [layers[0].reshape(1, 16, 8, 16), layers[1]]
    assert identity(layers).difference(identity(turned)) == "outputs"


def test_configurations_are_compared_between_equal_versions_alone(monkeypatch):
    layers = maps()
    one = identity(layers, "a")
    assert one.difference(identity(layers, "b")) == "configuration"
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert one.difference(identity(layers, "b")) is None
    assert one.difference(identity(maps(seed=1), "b")) == "outputs"


def test_no_identity_is_another():
    assert identity(maps()).difference(None) == "configuration"


def test_dead_and_overflowing_layers():
    zeros = [torch.zeros(1, 2, 3, 3)]
    assert identity(zeros).difference(identity(zeros)) is None
    assert identity(zeros).difference(identity([torch.full((1, 2, 3, 3), 1e-9)])) == "outputs"
    broken = [torch.tensor([[[[1.0, torch.nan], [torch.inf, 2.0]]]])]
    assert identity(broken).difference(identity(broken)) is None
    assert identity(broken).difference(identity([torch.ones(1, 1, 2, 2)])) == "outputs"


def test_it_stays_small():
    kept = identity([torch.randn(1, 256, 56, 56), torch.randn(1, 512, 28, 28)])
    assert sum(values.nbytes for values in kept.values) < 10_000


def test_the_image_is_the_same_for_ever():
    image = probe_image(33)
    assert image.dtype == torch.uint8
    assert (int(image.sum()), image[0, 5, 7].tolist()) == (408879, [135, 129, 192])
    assert len(np.unique(image)) > 200
