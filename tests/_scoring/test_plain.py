"""The papers' formulas against their float64 test vectors."""

import numpy as np
import pytest

from skad._scoring.plain import mean_of_nearest, reweight

BANK = np.array([[0.0, 0], [1, 0], [0, 2], [4, 4], [5, 4]])
QUERIES = np.array([[0.2, 0.1], [1, 1], [3, 3], [8, 8]])


def to_rows(rows):
    return np.stack(
        [np.linalg.norm(q - BANK[r], axis=1) for q, r in zip(QUERIES, rows, strict=True)]
    )


def test_mean_of_nearest():
    distances = np.sort(np.linalg.norm(QUERIES[:, None] - BANK[None], axis=2), axis=1)
    expected = {
        (1, False): [0.223606797749979, 1, 1.4142135623730951, 5],
        (1, True): [0.05, 1, 2, 25],
        (3, False): [0.9801099633447047, 1.2761423749153966, 2.2708530666804214, 6.885618083164126],
        (3, True): [1.45, 1.666666666666667, 5.666666666666668, 52.333333333333336],
    }
    for (k, squared), scores in expected.items():
        got = mean_of_nearest(distances[:, :k], squared)
        np.testing.assert_allclose(got, scores, rtol=1e-12)
    assert mean_of_nearest(np.zeros((2, 3, 4), dtype=np.float32), True).shape == (2, 3)


@pytest.mark.parametrize(
    ("rows", "weights"),
    [
        (
            [[0, 1, 2], [1, 0, 2], [3, 4, 2], [4, 3, 2]],
            [0.8779502068938394, 0.7516367449884344, 0.8891129705992518, 0.9933924434167962],
        ),
        (
            [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [3, 4, 2, 1, 0], [4, 3, 2, 1, 0]],
            [0.9982801230509932, 0.9881271461012927, 0.971333718668239, 0.9989818081750962],
        ),
        (  # the mis-reading that leaves the nearest vector out
            [[1, 2, 3], [0, 2, 3], [4, 2, 1], [3, 2, 1]],
            [0.9948030074883217, 0.9650686724513855, 0.9410563682994361, 0.9976692401316285],
        ),
    ],
)
def test_reweight(rows, weights):
    nearest = [0.223606797749979, 1.0, 1.4142135623730951, 5.0]
    np.testing.assert_allclose(reweight(nearest, to_rows(rows)), weights, rtol=1e-12)


def test_reweight_does_not_overflow():
    got = reweight(800.0, [800.0, 801.0, 805.0])
    assert got == pytest.approx(0.993426736814691, rel=1e-12)


@pytest.mark.parametrize("b", [2, 5, 9])
def test_weights_lie_in_their_bounds(b):
    to_neighbours = np.random.default_rng(b).uniform(0, 20, (500, b))
    weights = reweight(to_neighbours.min(1), to_neighbours)
    assert weights.min() >= 1 - 1 / b - 1e-12
    assert weights.max() < 1


def test_equal_distances_give_the_lowest_weight():
    np.testing.assert_allclose(reweight([3.0], [[3.0] * 4]), [0.75], rtol=1e-15)


def test_one_neighbour_is_refused():
    with pytest.raises(ValueError, match="b >= 2"):
        reweight([1.0], [[1.0]])
