"""Proposals, and the bounds that follow from them."""

import numpy as np
import pytest
import torch

from skad._bank import MemoryBank
from skad._bank.bounds import (
    batch_bounds_pay,
    batch_upper_bounds,
    bounds_pay,
    leading_directions,
    upper_bounds,
)


@pytest.fixture(scope="module")
def vectors():
    """400 vectors that spread in few directions, as features do."""
    rng = np.random.default_rng(0)
    scales = 1 / (1 + np.arange(160))
    return (rng.normal(size=(400, 160)) * scales + 5).astype(np.float32)


@pytest.fixture(scope="module")
def bank(vectors):
    return MemoryBank(vectors, np.arange(400) // 40)


@pytest.fixture(scope="module")
def queries(vectors):
    noise = np.random.default_rng(1).normal(size=(60, 160)) * 0.02
    return torch.from_numpy((vectors[:60] + noise).astype(np.float32))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("exclude_source", [None, 0])
def test_bound_the_distances_from_above(bank, queries, k, exclude_source):
    bounds = upper_bounds(bank, queries, k, exclude_source=exclude_source)
    exact, _ = bank.search(queries, k, exclude_source=exclude_source)
    assert bounds.shape == exact.shape == (60, k)
    assert (bounds >= exact).all()
    # And closely: nearly every proposal is what a search finds.
    assert np.mean(bounds[:, 0] <= exact[:, 0] * (1 + 1e-4)) > 0.9


def test_vectors_of_the_image_itself_are_left_out(bank, vectors):
    own = torch.from_numpy(vectors[:40])
    assert (upper_bounds(bank, own, 1) < 1e-3).all()
    assert (upper_bounds(bank, own, 1, exclude_source=0) > 1e-3).all()


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("exclude_source", [None, 0])
def test_coarse_bounds_of_a_large_bank_are_bounds_too(queries, k, exclude_source):
    scales = 1 / (1 + np.arange(160))
    many = np.random.default_rng(2).normal(size=(1200, 160)) * scales + 5
    sources = np.arange(1200) // 40
    bank = MemoryBank(many, sources)
    coarse = upper_bounds(bank, queries, k, exclude_source=exclude_source, coarse=True)
    exact, _ = bank.search(queries, k, exclude_source=exclude_source)
    assert (coarse >= exact).all()
    fine = upper_bounds(bank, queries, k, exclude_source=exclude_source)
    assert fine.mean() < coarse.mean()
    # They come from every eighth vector, as far as it is not left out.
    eighth = many[::8] if exclude_source is None else many[::8][sources[::8] != exclude_source]
    _, ids = MemoryBank(eighth, np.zeros(len(eighth))).search(queries, k)
    exact_in_an_eighth = np.linalg.norm(queries.numpy()[:, None] - eighth[ids], axis=2)
    assert (coarse >= exact_in_an_eighth * (1 - 1e-6)).all()


def test_coarse_bounds_leave_enough_neighbours():
    """Every eighth vector belongs to the image that is left out."""
    vectors = np.random.default_rng(3).normal(size=(1200, 130))
    bank = MemoryBank(vectors, np.where(np.arange(1200) % 8 == 0, 0, 1))
    queries = torch.from_numpy(vectors[:5].astype(np.float32))
    bounds = upper_bounds(bank, queries, 2, exclude_source=0, coarse=True)
    np.testing.assert_array_equal(bounds, upper_bounds(bank, queries, 2, exclude_source=0))


def test_none_where_a_search_costs_no_more(bank, vectors):
    cpu = torch.device("cpu")
    assert bounds_pay(bank, cpu)
    assert not bounds_pay(MemoryBank(vectors[:100], np.zeros(100)), cpu)
    assert not bounds_pay(MemoryBank(vectors[:, :100], np.zeros(400)), cpu)


def test_none_where_the_search_is_not_exact(vectors):
    bank = MemoryBank(vectors, np.zeros(400), index="HNSW32")
    assert not bounds_pay(bank, torch.device("cpu"))


def test_too_many_neighbours(bank, queries):
    with pytest.raises(ValueError, match="k must be between 1 and the 360 vectors"):
        upper_bounds(bank, queries, 361, exclude_source=0)


def test_same_bounds_after_a_pickle(bank, queries):
    import pickle

    again = pickle.loads(pickle.dumps(bank))
    np.testing.assert_array_equal(upper_bounds(again, queries, 1), upper_bounds(bank, queries, 1))


def test_leading_directions_span_where_vectors_spread(vectors):
    points = torch.from_numpy(vectors - vectors.mean(0))
    basis = leading_directions(points, 8)
    torch.testing.assert_close(basis.T @ basis, torch.eye(8), atol=1e-5, rtol=0)
    kept = (points @ basis).square().sum() / points.square().sum()
    best = torch.linalg.svdvals(points)[:8].square().sum() / points.square().sum()
    assert best * 0.99 < kept <= best * 1.00001


def test_vectors_that_are_all_equal():
    """Nothing spreads at all."""
    bank = MemoryBank(np.ones((200, 150), dtype=np.float32), np.zeros(200))
    bounds = upper_bounds(bank, torch.zeros(5, 150), 1)
    np.testing.assert_allclose(bounds, np.sqrt(150), rtol=2e-5)


class TestHalfPrecision:
    @pytest.mark.parametrize("k", [1, 3])
    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
    def test_never_below_the_distance_and_close_to_it(self, vectors, queries, k, scale):
        bank = MemoryBank(vectors * scale, np.zeros(400))
        distances, _ = bank.search(queries * scale, k)
        bounds = batch_upper_bounds(bank, queries[None] * scale, k)[0]
        assert bounds.shape == (60, k)
        assert bounds.dtype == torch.float32
        assert (bounds.numpy() >= distances).all()
        longest = np.linalg.norm(vectors - vectors.mean(0), axis=1).max() * scale
        assert (bounds.numpy() <= np.hypot(distances, 0.15 * longest)).all()

    @pytest.mark.parametrize("far", [1e2, 1e4, 1e9, 1e25])
    def test_queries_far_beyond_the_bank(self, vectors, queries, far):
        """Their products overflow; others beside them keep close bounds."""
        bank = MemoryBank(vectors, np.zeros(400))
        alone = batch_upper_bounds(bank, queries[None], 1)
        mixed = torch.cat([queries, queries[:5] * far, -queries[:5] * far])
        bounds = batch_upper_bounds(bank, mixed[None], 1)
        np.testing.assert_array_equal(bounds[0, :60], alone[0])
        exact = torch.cdist(mixed[60:].double(), torch.from_numpy(vectors).double()).amin(1)
        assert (bounds[0, 60:, 0].double() >= exact).all()
        if far < 1e4:
            assert (bounds[0, 60:, 0].double() <= 1.5 * exact).all()
        else:  # beyond 65,504, scaled, a query is infinitely far
            assert torch.isinf(bounds[0, 60:, 0]).all()

    def test_far_from_the_origin(self, vectors, queries):
        """float32 itself has few digits left of the differences."""
        away = 3e4
        bank = MemoryBank(vectors + away, np.zeros(400))
        distances, _ = bank.search(queries + away, 1)
        assert (batch_upper_bounds(bank, (queries + away)[None], 1)[0].numpy() >= distances).all()

    def test_bank_of_one_point(self):
        bank = MemoryBank(np.full((3, 4), 7.0), np.zeros(3))
        queries = torch.tensor([[[7.0, 7.0, 7.0, 7.0], [8.0, 7.0, 7.0, 7.0]]])
        bounds = batch_upper_bounds(bank, queries, 2)
        assert (bounds.numpy() >= bank.search(queries, 2)[0]).all()

    def test_in_portions(self, bank, queries, monkeypatch):
        whole = [batch_upper_bounds(bank, queries[None], k) for k in (1, 3)]
        monkeypatch.setattr("skad._bank.bounds._PRODUCTS", 60 * 64)
        for k, expected in zip((1, 3), whole, strict=True):
            np.testing.assert_array_equal(batch_upper_bounds(bank, queries[None], k), expected)

    def test_too_many_neighbours(self, bank, queries):
        with pytest.raises(ValueError, match="k must be between 1 and the 400"):
            batch_upper_bounds(bank, queries[None], 401)

    def test_only_where_searches_are_exact_and_halves_fast(self, vectors):
        gpu, cpu = torch.device("cuda"), torch.device("cpu")
        assert batch_bounds_pay(MemoryBank(vectors, np.zeros(400)), gpu)
        assert not batch_bounds_pay(MemoryBank(vectors, np.zeros(400)), cpu)
        assert not batch_bounds_pay(MemoryBank(vectors, np.zeros(400), "Flat"), gpu)
