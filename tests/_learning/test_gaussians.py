"""Gaussians at every position, held to covariances that are written out and inverted in float64."""

import numpy as np
import pytest
import torch

from skad._features import Pyramid
from skad._learning import blocks_of, fit_gaussians, squared_distances

EPSILON = 0.01
SHAPES = [(6, 8, 5), (3, 4, 7), (2, 2, 9)]


def covariances(X):
    """Mean, and covariance with its regularization, of (n, d) values: Eq. 1 of the paper."""
    deviations = X - X.mean(axis=0)
    S = deviations.T @ deviations / max(len(X) - 1, 1)
    return X.mean(axis=0), S + EPSILON * np.eye(X.shape[1])


def squared(x, X):
    """Squared Mahalanobis distance of a vector to the Gaussian of others: Eq. 2."""
    mean, covariance = covariances(X)
    return (x - mean) @ np.linalg.inv(covariance) @ (x - mean)


class Case:
    """Layers of n images, and all of their channels on the grid of the first."""

    def __init__(self, n, channels=None, seed=0, scale=1.0):
        rng = np.random.default_rng(seed)
        maps = [scale * np.abs(rng.normal(size=(n, *shape))) for shape in SHAPES]
        self.pyramid = Pyramid(SHAPES, channels)
        taken = self.pyramid.take([torch.from_numpy(layer) for layer in maps])
        self.levels = self.pyramid.split(taken)
        self.parents = [torch.from_numpy(own) for own in self.pyramid.parents]
        layers = [layer.reshape(n, -1, layer.shape[3]) for layer in maps]
        joined = layers[2][:, self.pyramid.parents[1]]
        joined = np.concatenate([layers[1], joined], axis=2)[:, self.pyramid.parents[0]]
        joined = np.concatenate([layers[0], joined], axis=2)
        self.joined = joined if channels is None else joined[..., channels]


@pytest.mark.parametrize("n", [1, 2, 3, 8, 60])
def test_distances_are_those_of_whole_covariances(n):
    learned, new = Case(n), Case(3, seed=1)
    gaussians, _ = fit_gaussians(learned.levels, learned.parents, EPSILON)
    found = squared_distances(new.levels, gaussians, learned.parents)
    expected = [
        [squared(new.joined[i, p], learned.joined[:, p]) for p in range(48)] for i in range(3)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 8, 60])
def test_an_image_is_scored_as_by_a_fit_without_it(n):
    case = Case(n)
    _, found = fit_gaussians(case.levels, case.parents, EPSILON)
    for i in (0, n - 1):
        others = np.delete(case.joined, i, axis=0)
        expected = [squared(case.joined[i, p], others[:, p]) for p in range(48)]
        np.testing.assert_allclose(found[i], expected, rtol=1e-9)


def test_hardly_any_regularization_leaves_distances_finite():
    case = Case(4)
    _, found = fit_gaussians(case.levels, case.parents, 1e-15)
    assert torch.isfinite(found).all()
    assert (found > 1e6).all()


def test_one_image_is_scored_by_no_other():
    case = Case(1)
    assert fit_gaussians(case.levels, case.parents, EPSILON)[1] is None


@pytest.mark.parametrize("channels", [[3], [8], [20], [0, 13, 14], [4, 11]])
def test_layers_without_channels(channels):
    case = Case(5, np.array(channels))
    gaussians, left_out = fit_gaussians(case.levels, case.parents, EPSILON)
    found = squared_distances(case.levels, gaussians, case.parents)
    for p in (0, 17, 47):
        one, others = case.joined[2, p], case.joined[[0, 1, 3, 4], p]
        np.testing.assert_allclose(found[2, p], squared(one, case.joined[:, p]), rtol=1e-9)
        np.testing.assert_allclose(left_out[2, p], squared(one, others), rtol=1e-9)


@pytest.mark.parametrize("size", [1, 3, 4])
def test_blocks_give_what_the_whole_does(size):
    case = Case(9)
    whole, left_out = fit_gaussians(case.levels, case.parents, EPSILON)
    seen = [[], [], []]
    for block in blocks_of(case.pyramid.parents, 4, size):
        levels = [layer[:, at] for layer, at in zip(case.levels, block.positions, strict=True)]
        parents = [torch.from_numpy(own) for own in block.parents]
        part, left = fit_gaussians(levels, parents, EPSILON)
        for j, at in enumerate(block.positions):
            seen[j] += at.tolist()
            torch.testing.assert_close(part.factors[j], whole.factors[j][at])
        torch.testing.assert_close(left, left_out[:, block.positions[0]])
    assert [sorted(numbers) for numbers in seen] == [list(range(n)) for n in (48, 12, 4)]


def test_regularization_that_is_lost_is_an_error():
    case = Case(3, scale=1e15)
    with pytest.raises(torch.linalg.LinAlgError):
        fit_gaussians(case.levels, case.parents, EPSILON)


def test_a_single_layer():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 5, 3)))
    gaussians, left_out = fit_gaussians([values], [], EPSILON)
    found = squared_distances([values], gaussians, [])
    others = values[1:, 2].numpy()
    np.testing.assert_allclose(found[0, 2], squared(values[0, 2].numpy(), values[:, 2].numpy()))
    np.testing.assert_allclose(left_out[0, 2], squared(values[0, 2].numpy(), others))
