"""Products taken layer by layer against products with the joined patches."""

import numpy as np
import pytest
import torch

from skad._bank import MemoryBank
from skad._features import FeatureSpec, patch_extractor
from skad._features.embedding import AdaptiveEmbedding, ConcatEmbedding
from skad._features.layers import PatchLayers, patch_layers
from skad._scoring.fast import FastScorer
from skad._scoring.heatmaps import Heatmap
from skad._scoring.plain import Rule

SHAPES = [(8, 6, 6), (16, 3, 3), (32, 2, 2)]  # the third grid is no half of the second


def maps(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand((1, *shape), generator=generator, dtype=torch.float64) for shape in shapes]


def both(embedding, shapes, mask=None):
    """Joined patches, and the layers that they come from."""
    pooled = embedding.pool(maps(shapes))
    patches = embedding.join(pooled)[0].flatten(0, 1)
    layers = PatchLayers([layer[0] for layer in pooled], embedding.starts(pooled), mask)
    return patches if mask is None else patches[mask], layers


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["concat", "adaptive"])
@pytest.mark.parametrize("masked", [False, True])
def test_products_are_those_of_joined_patches(n_layers, kind, masked):
    shapes = SHAPES[:n_layers]
    embedding = ConcatEmbedding(3)
    if kind == "adaptive":
        # 3 x 20 values pooled to 7: bins straddle layers.
        embedding = AdaptiveEmbedding([c for c, *_ in shapes], 3, 20, 7, dtype=torch.float64)
    mask = torch.arange(36) % 5 != 0 if masked else None
    patches, layers = both(embedding, shapes, mask)
    numbers = torch.from_numpy(np.random.default_rng(1).random((12, patches.shape[1])))
    points, centre, bias = numbers[:11], numbers[11], torch.arange(11.0, dtype=torch.float64)
    torch.testing.assert_close(layers.products(points, bias), bias - 2 * patches @ points.T)
    torch.testing.assert_close(
        layers.centred(centre).products(points, bias), bias - 2 * (patches - centre) @ points.T
    )


def test_layers_of_one_resolution():
    patches, layers = both(ConcatEmbedding(1), [(8, 6, 6), (16, 6, 6), (32, 3, 3)])
    points, bias = torch.rand(5, 56, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    torch.testing.assert_close(layers.products(points, bias), bias - 2 * patches @ points.T)


@pytest.mark.parametrize(("layers", "pay"), [((2,), False), ((2, 3), True), ((1, 2, 3), True)])
def test_one_layer_alone_costs_what_its_patches_cost(layers, pay):
    spec = FeatureSpec("resnet10t", layers, 64, 3, "concat", 64, 48, "float32")
    extractor = patch_extractor(spec, "resnet10t", None, torch.device("cpu"))
    pooled = extractor.pool(np.zeros((1, 64, 64, 3), np.uint8))[0]
    assert (patch_layers(extractor, pooled, np.ones(extractor.grid, dtype=bool)) is not None) == pay


@pytest.mark.parametrize("k", [1, 3])
def test_a_bank_finds_the_same_by_them(k):
    spec = FeatureSpec("resnet10t", (2, 3), 64, 3, "concat", 64, 48, "float32")
    extractor = patch_extractor(spec, "resnet10t", None, torch.device("cpu"))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    known = extractor.embed(pixels[:5]).flatten(0, 1).numpy()
    bank = MemoryBank(known, np.repeat(np.arange(5), 64))
    mask = np.ones((8, 8), dtype=bool)
    mask[:, 6:] = False
    pooled = extractor.pool(pixels[5:])[0]
    rows = extractor.join(pooled[None])[0, torch.from_numpy(mask.ravel())]
    rule = Rule(k, False, None, weighs_patches=False, image_score="map")
    scorer = FastScorer(bank, rule, Heatmap(64, 4.0))
    _, found = scorer.score_every(extractor, pooled[None], mask)
    np.testing.assert_array_equal(found, scorer.score_patches(rows))
