"""Which images are suspicious: held to a plain loop, and to what it is for."""

import numpy as np
import pytest
import torch

from skad._images import Footprint
from skad._scoring import trimming
from skad._scoring.heatmaps import Heatmap
from skad._scoring.trimming import images_to_trim, suspicions

SIDE, DIM = 6, 5
HEATMAP = Heatmap(12, 0.0)


def generator():
    return torch.Generator().manual_seed(0)


def whole(n):
    return [Footprint(np.ones((SIDE, SIDE), bool), (0, 12, 0, 12))] * n


def aligned(rng, n):
    """Images of one scene, each with noise of its own."""
    return rng.normal(size=(SIDE, SIDE, DIM)) + 0.1 * rng.normal(size=(n, SIDE, SIDE, DIM))


def score(images, footprints=None):
    masks = np.stack([footprint.mask for footprint in footprints or whole(len(images))])
    patches = torch.from_numpy(images[masks]).float()
    return suspicions(patches, footprints or whole(len(images)), HEATMAP, generator())


def test_distance_to_the_third_nearest_image():
    images = aligned(np.random.default_rng(0), 7)
    known = trimming._Images(torch.from_numpy(images.reshape(-1, DIM)), whole(7))
    references = trimming._References.of(known, generator())
    drawn = references.drawn.T.reshape(trimming._N_DRAWN, 7, DIM).numpy()
    centred = images - images.mean(axis=(0, 1, 2))
    found = references.squared_distances(known.of(torch.arange(7)))
    for y, x, i, j in [(0, 0, 0, 1), (2, 3, 4, 2), (5, 5, 6, 6), (0, 4, 3, 5)]:
        around = centred[j, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].reshape(-1, DIM)
        near = np.concatenate([around, drawn[:, j]])
        expected = ((near - centred[i, y, x]) ** 2).sum(axis=1).min()
        assert float(found[y, x, i, j]) == pytest.approx(expected, abs=1e-9)
    # Own patches are no neighbours; without smoothing, the map's peak is near that of the grid.
    far = found.masked_fill(torch.eye(7, dtype=torch.bool), torch.inf)
    third = far.sort(dim=-1).values[..., 2].sqrt().amax(dim=(0, 1)).numpy()
    peaks = score(images)
    assert (peaks <= third + 1e-6).all()
    assert (peaks > 0.8 * third).all()


@pytest.mark.parametrize("lie", ["alike", "anyhow"])
def test_two_images_with_the_same_defect_do_not_vouch_for_each_other(lie):
    rng = np.random.default_rng(1)
    images = aligned(rng, 20)
    images[[3, 12], 2:4, 2:4] += rng.normal(size=DIM)
    if lie == "anyhow":
        images = np.stack([np.roll(one, rng.integers(SIDE, size=2), (0, 1)) for one in images])
    patches = torch.from_numpy(images.reshape(-1, DIM)).float()
    chosen = images_to_trim(patches, whole(20), HEATMAP, 0.1, generator())
    assert chosen.tolist() == [3, 12]


def test_padding_is_no_neighbour_and_no_patch():
    """Whatever lies in padding changes nothing, and wide images are not suspicious for it."""
    rng = np.random.default_rng(2)
    images = aligned(rng, 9)
    images[4, 2, 2] += 3
    mask = np.zeros((SIDE, SIDE), bool)
    mask[1:5] = True
    wide = Footprint(mask, (2, 10, 0, 12))
    found = score(images, [wide] * 3 + whole(6))
    assert np.isfinite(found).all()
    assert found.argmax() == 4
    images[:3, [0, 5]] = 1e6
    np.testing.assert_array_equal(score(images, [wide] * 3 + whole(6)), found)


def test_many_images_are_compared_with_some(monkeypatch):
    monkeypatch.setattr(trimming, "_N_REFERENCES", 8)
    images = aligned(np.random.default_rng(3), 40)
    images[[7, 30], 3, 3] += 3
    assert set(np.argsort(score(images))[-2:]) == {7, 30}
