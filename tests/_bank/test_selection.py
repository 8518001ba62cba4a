"""Coresets that grow or stay full while rows come: what they cover, and what they promise."""

import numpy as np
import pytest
import torch

from skad._bank import Cover, grow_coreset, start_coreset
from skad._bank.coreset import distance_to_nearest, farthest_first


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def radius_over(seen, centres):
    """Largest distance to the nearest centre, from differences."""
    seen, centres = np.asarray(seen, dtype=np.float64), np.asarray(centres, dtype=np.float64)
    return max(np.linalg.norm(centres - row, axis=1).min() for row in seen)


def best_radius_on_a_line(points, k):
    """Exact covering radius of k intervals, by bisection; centres may lie anywhere."""
    points = np.sort(np.ravel(points))
    low, high = 0.0, np.ptp(points)
    for _ in range(60):
        middle, used, end = (low + high) / 2, 0, -np.inf
        for point in points:
            if point > end:
                used, end = used + 1, point + 2 * middle
        low, high = (low, middle) if used <= k else (middle, high)
    return high


def stream(portions, sizes, **settings):
    """Coreset after every portion: yields (rows of values, cover, all seen)."""
    settings = {"method": "greedy", **settings}
    seen = torch.as_tensor(portions[0])
    chosen = start_coreset(seen, sizes[0], generator=seeded(), **settings)
    kept = seen[chosen.rows]
    yield kept, chosen.cover, seen
    for portion, size in zip(portions[1:], sizes[1:], strict=True):
        new = torch.as_tensor(portion)
        chosen = grow_coreset(
            kept, new, size, cover=chosen.cover, n_seen=len(seen), generator=seeded(), **settings
        )
        assert len(set(chosen.rows.tolist())) == size
        kept, seen = torch.cat([kept, new])[chosen.rows], torch.cat([seen, new])
        yield kept, chosen.cover, seen


def test_traversal_knows_its_distances():
    X = torch.randn(60, 3, generator=seeded(), dtype=torch.float64)
    found = farthest_first(X, 9, start=4, measure=True)
    assert found.center_dist[0] == np.inf
    for j in range(1, 9):
        before = X[found.rows[:j]].numpy()
        expected = np.linalg.norm(before - X[found.rows[j]].numpy(), axis=1).min()
        assert found.center_dist[j] == pytest.approx(expected)
    assert found.radius == pytest.approx(radius_over(X, X[found.rows]))
    expected = np.linalg.norm(X.numpy()[:, None] - X[found.rows].numpy(), axis=2).min(1)
    np.testing.assert_allclose(found.left, expected, atol=1e-7)
    assert (found.left[found.rows] == 0).all()
    assert len(farthest_first(X, 9, start=4).left) == 0


def test_going_on_from_centres_is_one_selection():
    X = torch.randn(200, 4, generator=seeded(), dtype=torch.float64)
    whole = farthest_first(X, 20, start=0).rows
    anchor = distance_to_nearest(X, X[whole[:8]])
    np.testing.assert_array_equal(farthest_first(X, 12, anchor=anchor).rows, whole[8:])
    assert farthest_first(X, 0, anchor=anchor).radius == pytest.approx(float(anchor.max()))


@pytest.mark.parametrize("seed", range(5))
def test_growing_keeps_what_is_there_and_covers_all(seed):
    portions = list(torch.randn(5, 80, 6, generator=seeded(seed), dtype=torch.float64))
    before, radius = None, 0.0
    for kept, cover, seen in stream(portions, [8, 16, 17, 40, 41]):
        if before is not None:
            assert torch.equal(kept[: len(before)], before)
        before, radius = kept, max(radius, radius_over(seen[-80:], kept))
        assert cover.radius == pytest.approx(radius)
        assert radius_over(seen, kept) <= radius + 1e-9


def test_growing_covers_new_rows_at_most_twice_as_widely_as_the_best_choice():
    rng = np.random.default_rng(0)
    for _ in range(20):
        old, new = rng.normal(size=(10, 1)), rng.normal(5, 3, size=(30, 1))
        (kept, _, _), (grown, _, _) = stream([old, new], [4, 7])
        # Three centres anywhere for what the old ones do not serve within r.
        apart = np.sort(distance_to_nearest(torch.as_tensor(new), kept).numpy())
        for served in apart:
            rest = new[distance_to_nearest(torch.as_tensor(new), kept).numpy() > served]
            best = max(served, best_radius_on_a_line(rest, 3)) if len(rest) else served
            assert radius_over(new, grown) <= 2 * best + 1e-9


STREAMS = {
    "alike": lambda rng, t: rng.normal(size=(12, 1)),
    "growing": lambda rng, t: rng.normal(size=(3, 1)) * 1.7**t,
    "drifting": lambda rng, t: rng.normal(t, 0.2, size=(1, 1)),
    "repeated": lambda rng, t: np.repeat(rng.integers(0, 4 + t, size=(5, 1)), 2, axis=0) * 1.0,
}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("k", [1, 5, 11])
def test_a_full_coreset_covers_eight_times_as_widely_as_the_best_at_most(kind, k):
    rng = np.random.default_rng(k)
    portions = [rng.normal(size=(12, 1))] + [STREAMS[kind](rng, t) for t in range(40)]
    for kept, cover, seen in stream(portions, [k] * len(portions)):
        radius = radius_over(seen, kept)
        assert radius <= cover.radius * (1 + 1e-9) + 1e-9
        assert cover.radius <= 8 * best_radius_on_a_line(seen, k) + 1e-9
        net = kept[: cover.net_size]
        assert radius_over(seen, net) <= 2 * cover.net_scale + 1e-9


def test_a_full_coreset_follows_a_stream_as_well_as_a_fresh_choice():
    portions = list(torch.randn(12, 100, 4, generator=seeded(3), dtype=torch.float64))
    *_, (kept, _, seen) = stream(portions, [60] * 12)
    fresh = seen[start_coreset(seen, 60, generator=seeded()).rows]
    assert radius_over(seen, kept) <= 1.35 * radius_over(seen, fresh)


def test_what_is_covered_changes_nothing():
    old = torch.randn(100, 3, generator=seeded(), dtype=torch.float64)
    (kept, cover, _), (again, same, _) = stream([old, old[:50]], [10, 10])
    assert torch.equal(kept, again)
    assert same == cover


def test_a_coreset_that_has_grown_can_become_full():
    portions = list(torch.randn(3, 50, 2, generator=seeded(), dtype=torch.float64))
    for kept, cover, seen in stream(portions, [5, 9, 9]):
        assert radius_over(seen, kept) <= cover.radius + 1e-9


def test_random_draws_are_fair_to_all_rows_ever_seen():
    counts = np.zeros(3)
    for seed in range(300):
        kept = torch.arange(10.0)[:, None]
        chosen = grow_coreset(
            kept, torch.ones(40, 1), 10, method="random", n_seen=60, generator=seeded(seed)
        )
        counts += [len(chosen.rows), (chosen.rows < 10).sum(), chosen.cover is None]
    assert counts[0] == 3000
    assert counts[2] == 300
    assert counts[1] / 300 == pytest.approx(6.0, abs=0.4)  # 60 of 100 rows were there before


@pytest.mark.parametrize("method", ["random", "approximate"])
def test_other_rules_grow_too(method):
    portions = list(torch.randn(4, 50, 6, generator=seeded()))
    for sizes in ([5, 10, 15, 20], [9] * 4):
        for kept, cover, _ in stream(portions, sizes, method=method):
            assert torch.isfinite(kept).all()
            assert cover is None


def test_taking_all_takes_all():
    *_, (kept, cover, seen) = stream(list(torch.randn(2, 6, 2)), [6, 12])
    assert torch.equal(kept, seen)
    assert cover.radius == 0


def test_errors():
    kept, new = torch.zeros(3, 2), torch.ones(4, 2)
    shared = {"n_seen": 5, "generator": seeded()}
    for n_select in (2, 8):
        with pytest.raises(ValueError, match="give 3 to 7"):
            grow_coreset(kept, new, n_select, cover=Cover(0.0, 3, 0.0), **shared)
    with pytest.raises(ValueError, match="needs the cover"):
        grow_coreset(kept, new, 4, **shared)
    with pytest.raises(ValueError, match="method"):
        grow_coreset(kept, new, 4, method="best", **shared)
    with pytest.raises(ValueError, match="NaN"):
        grow_coreset(kept, new * torch.nan, 4, cover=Cover(0.0, 3, 0.0), **shared)
