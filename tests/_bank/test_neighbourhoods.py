"""Neighbours of bank vectors, whoever asks for them and beside whom."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from brute_force import brute_force

from skad._bank import neighbourhoods
from skad._bank.neighbourhoods import Neighbourhoods
from skad._bank.search import ExactSearch

FEW = [[0.0, 0], [1, 0], [0, 2], [4, 4], [5, 4]]


def vectors(n, d=16, seed=1):
    return np.random.default_rng(seed).normal(3, 1, (n, d)).astype(np.float32)


def around(points, b):
    return Neighbourhoods(ExactSearch(torch.as_tensor(points)), b)


def test_all():
    points = vectors(300)
    got = around(points, 5).of(np.arange(300))
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, brute_force(points, points, 5)[1])
    np.testing.assert_array_equal(around(points, 1).of(np.arange(300))[:, 0], np.arange(300))


def test_by_hand():
    expected = [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 4, 2], [4, 3, 2]]
    assert around(FEW, 3).of(np.arange(5)).tolist() == expected
    assert around(FEW, 3).of(np.array([4, 0, 4])).tolist() == [
        expected[4],
        expected[0],
        expected[4],
    ]
    assert around(FEW, 3).of(np.array([], dtype=int)).shape == (0, 3)


def test_duplicates_begin_with_the_vector_itself():
    got = around(np.ones((7, 3)), 3).of(np.arange(7))
    np.testing.assert_array_equal(got[:, 0], np.arange(7))
    assert all(len(set(row)) == 3 for row in got.tolist())


def test_what_is_known_is_not_searched_for_again(monkeypatch):
    neighbours, searched = around(vectors(300), 4), []
    measure = neighbourhoods.measured
    monkeypatch.setattr(
        neighbourhoods,
        "measured",
        lambda rows, *rest: searched.append(len(rows)) or measure(rows, *rest),
    )
    first = neighbours.of(np.array([0, 7, 7, 299]))
    again = neighbours.of(np.array([299, 0, 8]))
    assert searched == [3, 1]
    np.testing.assert_array_equal(again[:2], first[[3, 0]])


def test_do_not_depend_on_what_else_is_asked(monkeypatch):
    points = vectors(1000)
    monkeypatch.setattr(neighbourhoods, "_ROWS", 64)
    together = around(points, 9).of(np.arange(1000))
    one_by_one = around(points, 9)
    for i in range(0, 1000, 97):
        np.testing.assert_array_equal(one_by_one.of(np.array([i]))[0], together[i])


@pytest.mark.parametrize("size", [3, 40])
def test_some_left_out(size):
    """Those of one group for all, or each vector's own group but itself; few groups or large ones."""
    points, group = vectors(120), np.arange(120) // size
    asked = np.arange(60, 120, 7)
    others = asked[group[asked] != 1]
    everyone = around(points, 4).of(others, group == 1)
    own = group == group[asked][:, None]
    own[np.arange(len(asked)), asked] = False
    for got, numbers, left_out in (
        (everyone, others, np.broadcast_to(group == 1, (len(others), 120))),
        (around(points, 4).of(asked, own), asked, own),
    ):
        for row, number, without in zip(got, numbers, left_out, strict=True):
            kept = np.flatnonzero(~without)
            nearest = brute_force(points[[number]], points[kept], 4)[1][0]
            np.testing.assert_array_equal(row, kept[nearest])


def test_threads_share_them():
    points = vectors(500)
    expected = around(points, 6).of(np.arange(500))
    shared = around(points, 6)
    orders = [np.random.default_rng(i).permutation(500)[:200] for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        for order, got in zip(orders, pool.map(shared.of, orders), strict=True):
            np.testing.assert_array_equal(got, expected[order])
