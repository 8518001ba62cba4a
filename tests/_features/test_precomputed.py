"""Features that were computed before: layers are found again as the backbone has made them."""

import numpy as np
import pytest
import torch

from skad._features import FeatureSpec, PrecomputedExtractor
from skad._features.embedding import align

CPU = torch.device("cpu")
SHAPES = ((7, 9, 5), (4, 5, 6), (2, 3, 3), (1, 9, 2))


def made_of(shapes):
    spec = FeatureSpec("precomputed", shapes, 64, 1, "concat", 1, 1, "float32")
    return PrecomputedExtractor(spec, CPU)


@pytest.fixture(scope="module")
def layers():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((3, *shape), generator=generator) for shape in SHAPES]


@pytest.fixture(scope="module")
def maps(layers):
    grid = layers[0].shape[1:3]
    return torch.cat([align(layer, grid) for layer in layers], dim=-1).numpy()


def test_layers_are_found_again(layers, maps):
    extractor = made_of(SHAPES)
    assert (extractor.grid, extractor.dim, extractor.channels) == ((7, 9), 16, [5, 6, 3, 2])
    pooled = extractor.pool(maps)
    assert pooled.shape == (3, extractor.n_values) == (3, sum(map(np.prod, SHAPES)))
    for found, layer in zip(extractor.split(pooled), layers, strict=True):
        torch.testing.assert_close(found, layer, rtol=0, atol=3e-6)
    joined = extractor.join(pooled).view(maps.shape)
    np.testing.assert_allclose(joined, maps, rtol=0, atol=3e-6)


def test_one_layer_is_taken_as_it_is(maps):
    extractor = made_of(((7, 9, 16),))
    assert np.array_equal(extractor.embed(maps), maps.reshape(3, 63, 16))


def test_features_do_not_depend_on_their_batch(maps):
    extractor = made_of(SHAPES)
    alone = torch.cat([extractor.pool(one[None]) for one in maps])
    assert torch.equal(extractor.pool(maps), alone)


def test_features_of_other_layers_are_recognised(maps):
    assert made_of(SHAPES).fits(maps[0])
    assert made_of(SHAPES).fits(maps[0].astype(np.float16).astype(np.float32))
    assert made_of(SHAPES).fits(np.zeros_like(maps[0]))
    assert made_of(((7, 9, 16),)).fits(maps[0])
    assert not made_of(((7, 9, 4), (4, 5, 7), *SHAPES[2:])).fits(maps[0])
    assert not made_of(((7, 9, 5), (3, 5, 6), *SHAPES[2:])).fits(maps[0])
