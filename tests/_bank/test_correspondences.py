"""Nearest places of a gallery, held to all distances of whole vectors in float64."""

import numpy as np
import pytest
import torch

from skad._bank import Gallery, correspondences, places
from skad._bank.correspondences import FastGallery
from skad._features import Pyramid

SHAPES = {
    "pyramid": [(6, 8, 5), (3, 4, 7), (2, 2, 9)],
    "odd": [(7, 9, 5), (4, 5, 3)],
    "one layer": [(5, 5, 4)],
    "one grid": [(4, 4, 3), (4, 4, 3)],
    "four layers": [(8, 8, 2), (4, 4, 3), (2, 2, 3), (1, 1, 4)],
}


def whole(levels, parents):
    """All layers on the finest grid, (..., P, d) float64."""
    joined = levels[-1]
    for layer, own in zip(reversed(levels[:-1]), reversed(parents), strict=True):
        joined = torch.cat([layer, joined[..., own, :]], dim=-1)
    return joined.double()


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("n_neighbors", [1, 3])
@pytest.mark.parametrize("way", [1, 32, "plain"])
def test_are_the_nearest_of_all(shapes, n_neighbors, way, monkeypatch):
    kind = Gallery if way == "plain" else FastGallery
    monkeypatch.setattr(correspondences, "_FIRST", way)
    monkeypatch.setattr(places, "_HELD", 500)
    rng = np.random.default_rng(0)
    pyramid, n_images = Pyramid(shapes), 6
    parents = [torch.from_numpy(own) for own in pyramid.parents]
    maps = [
        torch.from_numpy(rng.normal(size=(n_images + 1, *shape)).astype(np.float32))
        for shape in shapes
    ]
    levels = pyramid.split(pyramid.take(maps))
    query, others = [layer[0] for layer in levels], [layer[1:] for layer in levels]
    counting = torch.from_numpy(rng.random((n_images, pyramid.sizes[0][0])) < 0.6)
    found = kind(others, counting, parents).distances(query, n_neighbors)
    expected = torch.cdist(
        whole(query, parents),
        whole(others, parents)[counting],
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    expected = expected.topk(n_neighbors, largest=False).values
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_portions_do_not_matter(monkeypatch):
    rng = np.random.default_rng(1)
    pyramid = Pyramid(SHAPES["pyramid"])
    parents = [torch.from_numpy(own) for own in pyramid.parents]
    levels = [torch.from_numpy(rng.normal(size=(5, *size))).float() for size in pyramid.sizes]
    counting = torch.ones((4, 48), dtype=torch.bool)
    gallery = FastGallery([layer[1:] for layer in levels], counting, parents)
    before = gallery.distances([layer[0] for layer in levels], 2)
    monkeypatch.setattr(correspondences, "_CELLS", 5)
    monkeypatch.setattr(correspondences, "_HELD", 1)
    after = gallery.distances([layer[0] for layer in levels], 2)
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_a_place_of_the_gallery_is_its_own_nearest():
    rng = np.random.default_rng(2)
    pyramid = Pyramid(SHAPES["pyramid"])
    parents = [torch.from_numpy(own) for own in pyramid.parents]
    levels = [torch.from_numpy(rng.normal(size=(3, *size))).float() for size in pyramid.sizes]
    gallery = FastGallery(levels, torch.ones((3, 48), dtype=torch.bool), parents)
    assert (gallery.distances([layer[1] for layer in levels], 1) == 0).all()
