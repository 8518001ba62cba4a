"""Channels of layers at their own resolutions, and where positions lie in coarser layers."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from skad._features import Pyramid


@pytest.fixture(scope="module")
def maps():
    rng = np.random.default_rng(0)
    shapes = [(2, 8, 12, 5), (2, 4, 6, 7), (2, 2, 3, 9)]
    return [torch.from_numpy(rng.normal(size=shape)) for shape in shapes]


def test_takes_channels_counted_through_all_layers(maps):
    channels = np.array([0, 3, 4, 5, 11, 12, 20])
    pyramid = Pyramid([layer.shape[1:] for layer in maps], channels)
    taken = pyramid.take(maps)
    assert taken.shape == (2, pyramid.n_values)
    assert pyramid.sizes == [(96, 3), (24, 2), (6, 2)]
    expected = [maps[0][..., [0, 3, 4]], maps[1][..., [0, 6]], maps[2][..., [0, 8]]]
    for layer, whole in zip(pyramid.split(taken), expected, strict=True):
        torch.testing.assert_close(layer, whole.flatten(1, 2), rtol=0, atol=0)


def test_a_layer_may_have_no_channel_of_its_own(maps):
    pyramid = Pyramid([layer.shape[1:] for layer in maps], np.array([2, 19]))
    assert pyramid.sizes == [(96, 1), (24, 0), (6, 1)]
    assert [layer.shape for layer in pyramid.split(pyramid.take(maps))] == [
        (2, *size) for size in pyramid.sizes
    ]


@pytest.mark.parametrize("sides", [(8, 4, 2), (9, 5, 3), (7, 7, 4), (63, 32, 16), (5, 10, 3)])
def test_parents_are_the_nearest_values_of_torch(sides):
    pyramid = Pyramid([(side, side + 1, 1) for side in sides])
    for (fine, coarse), parents in zip([sides[:2], sides[1:]], pyramid.parents, strict=True):
        numbers = torch.arange(coarse * (coarse + 1.0)).reshape(1, 1, coarse, coarse + 1)
        nearest = interpolate(numbers, size=(fine, fine + 1), mode="nearest")
        np.testing.assert_array_equal(parents, nearest.flatten().long().numpy())
