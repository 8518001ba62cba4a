"""Coreset selection against the plain loop and the hand-checked selections."""

import numpy as np
import pytest
import torch

from skad._bank import (
    coreset,
    covering_radius,
    greedy_k_center,
    projection_matrix,
    start_coreset,
)

POINTS = [[0, 0], [1, 0], [0, 1.5], [6, 0], [6.5, 1], [2, 5], [2.2, 5.5], [9, 9]]
LINE = [[0.0], [1.0], [2.0], [10.0], [11.0], [30.0]]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pairwise(X):
    X = np.asarray(X, dtype=np.float64)
    return np.sqrt(((X[:, None] - X[None]) ** 2).sum(-1))


def plain_loop(X, n_select, start=None, anchor=None):
    """Textbook rule on differences: no matrix product, no blocks."""
    X = np.asarray(X, dtype=np.float64)
    min_sq_dist = np.full(len(X), np.inf) if anchor is None else np.asarray(anchor) ** 2.0
    centers = [] if start is None else [start]
    for center in centers:
        min_sq_dist = np.minimum(min_sq_dist, ((X - X[center]) ** 2).sum(1))
    min_sq_dist[centers] = -1
    while len(centers) < n_select:
        center = int(min_sq_dist.argmax())
        centers.append(center)
        min_sq_dist = np.minimum(min_sq_dist, ((X - X[center]) ** 2).sum(1))
        min_sq_dist[centers] = -1
    return centers


def mean_distance(X, starts):
    return pairwise(X)[:, starts].mean(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block_size", [1, 2, 1024])
def test_specified_selections(dtype, block_size):
    X = torch.tensor(POINTS, dtype=dtype)
    row_norm = np.linalg.norm(pairwise(POINTS), axis=1)
    size = {"block_size": block_size}
    assert greedy_k_center(X, 4, start=0, **size).tolist() == [0, 7, 4, 6]
    assert greedy_k_center(X, 4, anchor=row_norm, **size).tolist() == [7, 0, 4, 6]
    approximate = greedy_k_center(X, 4, anchor=mean_distance(POINTS, [1, 5, 6]), **size)
    assert approximate.tolist() == [7, 3, 0, 6]
    for centers in ([0, 7, 4, 6], [7, 0, 4, 6], approximate):
        assert covering_radius(X, centers) == pytest.approx(1.5, rel=1e-12)


def test_specified_selections_on_a_line():
    X = torch.tensor(LINE, dtype=torch.float64)
    anchor = mean_distance(LINE, [0, 1, 2])
    np.testing.assert_allclose(anchor, [1, 2 / 3, 1, 9, 10, 29], rtol=1e-12)
    assert greedy_k_center(X, 3, start=0).tolist() == [0, 5, 4]
    row_norm = np.linalg.norm(pairwise(LINE), axis=1)
    assert greedy_k_center(X, 3, anchor=row_norm).tolist() == [5, 0, 4]
    assert greedy_k_center(X, 3, anchor=anchor).tolist() == [5, 4, 0]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "d", "n_select"), [(50, 3, 50), (700, 8, 300), (3000, 24, 200)])
def test_equals_the_plain_loop_in_float64(seed, n, d, n_select):
    X = torch.randn(n, d, generator=seeded(seed), dtype=torch.float64) + 5
    start = seed % n
    expected = plain_loop(X, n_select, start=start)
    for block_size in (7, 64, 1024):
        got = greedy_k_center(X, n_select, start=start, block_size=block_size)
        assert got.tolist() == expected
    anchor = mean_distance(X[:1], [0])[0] + (X - X[start]).norm(dim=1)
    expected = plain_loop(X, n_select, anchor=anchor)
    assert greedy_k_center(X, n_select, anchor=anchor, block_size=64).tolist() == expected


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_candidates", [1, 40, 10_000])
@pytest.mark.parametrize("block", [3, 16, 100])
def test_rows_that_were_left_alone_catch_up(monkeypatch, seed, n_candidates, block):
    monkeypatch.setattr(coreset, "_MIN_CANDIDATES", n_candidates)
    monkeypatch.setattr(coreset, "_CANDIDATE_FRACTION", 0.0)
    monkeypatch.setattr(coreset, "_BLOCK", block)
    cluster = torch.randint(3, (300, 1), generator=seeded(seed))
    X = torch.randn(300, 4, generator=seeded(seed), dtype=torch.float64) + 6.0 * cluster
    found = coreset.farthest_first(X, 60, start=seed, block_size=8, measure=True)
    assert found.rows.tolist() == plain_loop(X, 60, start=seed)
    expected = pairwise(X)[:, found.rows].min(1)
    np.testing.assert_allclose(found.left, expected, atol=1e-7)
    assert found.radius == pytest.approx(expected.max())
    unmeasured = coreset.farthest_first(X, 60, start=seed, block_size=8)
    assert unmeasured.radius == pytest.approx(found.radius, rel=1e-9)


def test_most_rows_are_left_alone(monkeypatch):
    """What the order of the arithmetic is for; sizes as small as the test, beside those of a fit."""
    monkeypatch.setattr(coreset, "_MIN_CANDIDATES", 0)
    monkeypatch.setattr(coreset, "_BLOCK", 64)
    products = []
    min_sq_dist_to = coreset._min_sq_dist_to

    def counted(points, norms, centers, bias):
        products.append(len(points) * len(centers))
        return min_sq_dist_to(points, norms, centers, bias)

    monkeypatch.setattr(coreset, "_min_sq_dist_to", counted)
    X = torch.randn(20_000, 8, generator=seeded())
    coreset.farthest_first(X, 2000, start=0, block_size=256)
    assert sum(products) < 0.5 * 20_000 * 2000


@pytest.mark.parametrize("block_size", [1, 5, 32, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_first_row_wins_ties_on_a_lattice(block_size, dtype):
    axis = torch.arange(7, dtype=dtype)
    X = torch.cartesian_prod(axis, axis, axis)
    X = X[torch.randperm(len(X), generator=seeded(3))] * 3 + 100
    got = greedy_k_center(X, len(X), start=5, block_size=block_size)
    assert got.tolist() == plain_loop(X, len(X), start=5)


@pytest.mark.parametrize("block_size", [3, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicates_never_repeat_a_row(block_size, dtype):
    distinct = torch.randn(5, 16, generator=seeded(), dtype=dtype)
    X = distinct[torch.randint(5, (200,), generator=seeded(1))]
    got = greedy_k_center(X, 120, start=0, block_size=block_size)
    assert len(set(got.tolist())) == 120
    assert len({tuple(row) for row in X[got[:5]].tolist()}) == 5
    assert covering_radius(X, got) == 0.0


def test_identical_rows_are_taken_in_order():
    X = torch.full((9, 4), 0.1)
    assert greedy_k_center(X, 9, start=4).tolist() == [4, 0, 1, 2, 3, 5, 6, 7, 8]


def test_float32_covers_as_well_as_float64():
    X = torch.randn(4000, 64, generator=seeded()).relu() + 3
    single = greedy_k_center(X, 400, start=0)
    double = greedy_k_center(X.double(), 400, start=0)
    assert covering_radius(X, single) == pytest.approx(covering_radius(X, double), rel=1e-5)


def test_one_row_and_all_rows():
    assert greedy_k_center(torch.ones(1, 3), 1).tolist() == [0]
    X = torch.randn(40, 3, generator=seeded())
    assert sorted(greedy_k_center(X, 40).tolist()) == list(range(40))
    assert covering_radius(X, range(40)) == 0.0


def test_accepts_numpy_half_and_integers():
    X = np.random.default_rng(0).integers(0, 255, (60, 4))
    expected = plain_loop(X, 10, start=0)
    assert greedy_k_center(X.astype(np.uint8), 10).tolist() == expected
    assert greedy_k_center(torch.from_numpy(X).half(), 10).tolist() == expected


def test_does_not_change_its_input():
    X = torch.randn(50, 3, generator=seeded())
    before, anchor = X.clone(), torch.ones(50)
    greedy_k_center(X, 10, anchor=anchor)
    assert torch.equal(X, before)
    assert torch.equal(anchor, torch.ones(50))


def test_progress_counts_up_to_the_end():
    seen = []
    X = torch.randn(3000, 16, generator=seeded())
    greedy_k_center(X, 500, start=0, block_size=256, progress=seen.append)
    assert seen == sorted(set(seen))
    assert seen[-1] == 500
    assert len(seen) < 60


def test_same_picks_again_and_with_autocast():
    X = torch.randn(3000, 32, generator=seeded())
    first = greedy_k_center(X, 300)
    assert np.array_equal(first, greedy_k_center(X, 300))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(first, greedy_k_center(X, 300))


@pytest.mark.parametrize("method", ["greedy", "approximate", "random"])
def test_methods_are_reproducible_and_leave_the_global_seed_alone(method):
    X = torch.randn(500, 200, generator=seeded())
    before = torch.random.get_rng_state()
    first = start_coreset(X, 50, method=method, generator=seeded(1)).rows
    again = start_coreset(X, 50, method=method, generator=seeded(1)).rows
    other = start_coreset(X, 50, method=method, generator=seeded(2)).rows
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.dtype == np.int64
    assert first.shape == (50,)
    assert len(set(first.tolist())) == 50
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("method", ["greedy", "approximate", "random"])
def test_keeping_all_keeps_their_order(method):
    generator = seeded()
    before = generator.get_state()
    centers = start_coreset(torch.ones(6, 3), 6, method=method, generator=generator).rows
    assert centers.tolist() == list(range(6))
    assert torch.equal(before, generator.get_state())


def test_approximate_is_the_published_rule():
    X = torch.randn(300, 4, generator=seeded(), dtype=torch.float64)
    starts = torch.randperm(300, generator=seeded(7))[:10].tolist()
    got = start_coreset(X, 40, method="approximate", generator=seeded(7)).rows
    assert got.tolist() == plain_loop(X, 40, anchor=mean_distance(X, starts))


def test_projection_matrix():
    matrix = projection_matrix(1000, 128, seeded())
    assert matrix.shape == (128, 1000)
    bound = 1000**-0.5
    assert matrix.abs().max() <= bound
    assert matrix.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
    assert abs(matrix.mean().item()) < 0.01 * bound


@pytest.mark.parametrize("out_dim", [None, 8, 9])
def test_never_projects_upwards(out_dim):
    assert projection_matrix(8, out_dim, seeded()) is None


def test_covering_radius_by_brute_force():
    X = torch.randn(200, 5, generator=seeded(), dtype=torch.float64)
    expected = pairwise(X)[:, [3, 50, 77]].min(1).max()
    got = covering_radius(X, [3, 50, 77], block_rows=33)
    assert got == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_select": 0}, "between 1 and the 5 rows"),
        ({"n_select": 6}, "between 1 and the 5 rows"),
        ({"start": 5}, "row number below 5"),
        ({"start": 0, "anchor": torch.ones(5)}, "not both"),
        ({"anchor": torch.ones(4)}, "shape"),
        ({"anchor": -torch.ones(5)}, "finite distances"),
        ({"block_size": 0}, "block_size"),
        ({"X": torch.full((5, 2), torch.nan)}, "NaN"),
        ({"X": torch.ones(5)}, "shape"),
    ],
)
def test_errors_of_greedy(change, message):
    arguments = {"X": torch.randn(5, 2), "n_select": 3} | change
    with pytest.raises(ValueError, match=message):
        greedy_k_center(**arguments)


def test_errors_of_the_other_functions():
    X = torch.randn(5, 2)
    with pytest.raises(ValueError, match="method"):
        start_coreset(X, 2, method="best", generator=seeded())
    with pytest.raises(ValueError, match="n_starts"):
        start_coreset(X, 2, method="approximate", n_starts=0, generator=seeded())
    with pytest.raises(ValueError, match="out_dim"):
        projection_matrix(5, 0, seeded())
    with pytest.raises(ValueError, match="empty"):
        covering_radius(X, [])


def test_overwriting_saves_a_copy_and_changes_no_center():
    X = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    kept, given = X.clone(), X.clone()
    centers = greedy_k_center(kept, 20, start=3)
    assert torch.equal(kept, X)
    assert greedy_k_center(given, 20, start=3, overwrite_x=True).tolist() == centers.tolist()
    assert not torch.equal(given, X)
