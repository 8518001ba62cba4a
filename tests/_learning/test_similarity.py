"""Eq. 1 to 6 against their definitions, written out set by set."""

import pytest
import torch

from skad._learning.similarity import (
    contextual_similarity,
    neighbourhoods,
    pairwise_similarity,
    similarity,
    squared_distances,
)

# Six points whose reciprocal neighbours differ: every misreading of Eq. 2 to 5 shows.
POINTS = torch.tensor(
    [(1.4, 0.7), (0.7, 0), (2.7, 1.3), (2.9, 1), (0.6, 2.1), (0.4, 3.8)], dtype=torch.float64
)


def by_definition(squares: torch.Tensor, k: int) -> torch.Tensor:
    """Eq. 2 to 5 with Python sets."""
    n, half = len(squares), max(1, k // 2)

    def near(i, size):
        limit = squares[i].sort().values[size - 1]
        return {j for j in range(n) if squares[i, j] <= limit}

    shared, expanded = torch.zeros(2, n, n, dtype=squares.dtype)
    for i in range(n):
        for j in near(i, k):
            shared[i, j] = len(near(i, k) & near(j, k)) / len(near(i, k))
    for i in range(n):
        reciprocal = [j for j in near(i, half) if i in near(j, half)]
        expanded[i] = shared[reciprocal].mean(dim=0)
    return (expanded + expanded.T) / 2


class TestSquaredDistances:
    def test_agrees_with_cdist(self):
        z = torch.randn(40, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(squared_distances(z), torch.cdist(z, z).square())

    def test_duplicates_far_from_the_origin_are_exactly_zero_apart(self):
        z = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)) + 1000
        squares = squared_distances(torch.cat([z, z]))
        assert int((squares == 0).sum()) == 4 * 50
        assert (squares >= 0).all()

    def test_gradient(self):
        z = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(squared_distances, z)


class TestPairwise:
    def test_sigma_divides_the_square_and_is_not_squared(self):
        squares = torch.tensor([[0.0, 0.98], [0.98, 0.0]], dtype=torch.float64)
        one, two = pairwise_similarity(squares, 1.0), pairwise_similarity(squares, 2.0)
        assert one[0, 1] == pytest.approx(0.37531109885139957)
        assert two[0, 1] == pytest.approx(one[0, 1] ** 0.5)
        assert one[0, 0] == 1


class TestContextual:
    def test_hand_check(self):
        omega = contextual_similarity(squared_distances(POINTS), k=4)
        expected = {(0, 2): 0.8125, (0, 1): 0.875, (0, 0): 0.875, (4, 5): 0.75, (3, 5): 0.0}
        for (i, j), value in expected.items():
            assert omega[i, j] == omega[j, i] == pytest.approx(value, abs=1e-12)

    @pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7, 10, 15, 30])
    def test_definition(self, k):
        z = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        squares = squared_distances(z)
        torch.testing.assert_close(contextual_similarity(squares, k), by_definition(squares, k))

    @pytest.mark.parametrize("k", [2, 3, 5])
    def test_definition_with_ties_and_duplicates(self, k):
        z = torch.randint(0, 3, (25, 2), generator=torch.Generator().manual_seed(k)).double()
        squares = torch.cdist(z, z).square().round()  # exact integers: ties are ties
        torch.testing.assert_close(contextual_similarity(squares, k), by_definition(squares, k))

    def test_ties_belong_to_the_neighbourhood(self):
        full, _ = neighbourhoods(squared_distances(torch.arange(4.0)[:, None].double()), k=2)
        assert full.int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]

    def test_does_not_depend_on_the_order_of_the_batch(self):
        z = torch.randint(0, 4, (20, 2), generator=torch.Generator().manual_seed(0)).double()
        order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
        squares = torch.cdist(z, z).square().round()
        omega = contextual_similarity(squares, 5)
        shuffled = contextual_similarity(squares[order][:, order], 5)
        torch.testing.assert_close(shuffled, omega[order][:, order])

    @pytest.mark.parametrize("n", [6, 40])
    def test_identical_patches_are_wholly_alike(self, n):
        assert (contextual_similarity(torch.zeros(n, n), k=5) == 1).all()


def test_alpha_blends():
    squares = squared_distances(POINTS)
    both = similarity(POINTS, k=4, alpha=0.25, sigma=1.0)
    torch.testing.assert_close(
        both, 0.25 * pairwise_similarity(squares, 1.0) + 0.75 * contextual_similarity(squares, 4)
    )
    assert similarity(POINTS, k=4, alpha=0.5, sigma=1.0)[0, 1] == pytest.approx(0.625155549)
