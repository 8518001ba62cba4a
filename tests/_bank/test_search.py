"""Nearest neighbours against brute force."""

import sys

import numpy as np
import pytest
import torch
from brute_force import brute_force

from skad._bank import MemoryBank, check_index
from skad._bank.search import FaissSearch, queries_at_once


def data(n, d, seed=0):
    return np.random.default_rng(seed).normal(3, 1, (n, d)).astype(np.float32)


def search(queries, vectors, k, exclude=None, **params):
    """Search a bank in which the excluded vectors come from image 1."""
    if exclude is None:
        return MemoryBank(vectors, np.zeros(len(vectors))).search(queries, k, **params)
    return MemoryBank(vectors, exclude).search(queries, k, exclude_source=1, **params)


@pytest.mark.parametrize("k", [1, 5, 9])
@pytest.mark.parametrize("m", [9, 300, 5000])  # 5000: more than one block of columns
def test_equals_brute_force(k, m):
    queries, vectors = data(60, 24), data(m, 24, seed=1)
    distances, ids = search(queries, vectors, k)
    expected, expected_ids = brute_force(queries, vectors, k)
    assert (distances.dtype, ids.dtype) == (np.float64, np.int64)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(distances, expected, rtol=1e-14)


def test_all_vectors_as_neighbours_across_blocks():
    queries, vectors = data(3, 4), data(2100, 4, seed=1)
    _, ids = search(queries, vectors, 2100)
    np.testing.assert_array_equal(np.sort(ids, axis=1), np.tile(np.arange(2100), (3, 1)))


def test_distance_to_itself_is_exactly_zero():
    vectors = data(500, 100) * 100
    distances, ids = search(vectors, vectors, 1)
    assert not distances.any()
    np.testing.assert_array_equal(ids[:, 0], np.arange(500))


def test_lower_row_first_where_equal():
    vectors = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    _, ids = search(np.zeros((2, 2)), vectors, 4)
    assert ids.tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("k", [1, 3])
def test_exclude(k):
    queries, vectors = data(20, 8), data(2500, 8, seed=1)
    kept = np.flatnonzero(np.random.default_rng(0).random(2500) < 0.3)
    exclude = np.ones(2500, dtype=bool)
    exclude[kept] = False
    distances, ids = search(queries, vectors, k, exclude=exclude)
    expected, expected_ids = brute_force(queries, vectors[kept], k)
    np.testing.assert_array_equal(ids, kept[expected_ids])
    np.testing.assert_allclose(distances, expected, rtol=1e-14)


def test_exclude_all_but_k():
    exclude = np.ones(3000, dtype=bool)
    exclude[[7, 2900]] = False
    _, ids = search(data(5, 8), data(3000, 8, seed=1), 2, exclude=exclude)
    np.testing.assert_array_equal(np.sort(ids, axis=1), [[7, 2900]] * 5)
    with pytest.raises(ValueError, match="k must be between 1 and the 2"):
        search(data(5, 8), data(3000, 8, seed=1), 3, exclude=exclude)


def test_autocast_and_gradients_do_not_reach_it():
    queries, vectors = torch.from_numpy(data(40, 16)), data(300, 16, seed=1)
    expected = search(queries, vectors, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = search(queries.requires_grad_(), vectors, 3)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


def test_no_queries():
    distances, ids = search(np.empty((0, 4)), data(5, 4), 2)
    assert distances.shape == ids.shape == (0, 2)


def test_shape_errors():
    with pytest.raises(ValueError, match="expected queries"):
        search(data(5, 4), data(5, 3), 1)
    with pytest.raises(ValueError, match="k must be"):
        search(data(5, 4), data(5, 4), 0)


@pytest.mark.parametrize("index", ["Flat", "HNSW16", "IVF4,Flat;nprobe=4"])
def test_faiss_finds_the_nearest(index):
    pytest.importorskip("faiss")
    queries, vectors = data(50, 16), data(400, 16, seed=1)
    ids = FaissSearch(vectors, index).candidates(queries, 1)
    agreement = (ids == brute_force(queries, vectors, 1)[1]).mean()
    assert agreement == 1.0 if index == "Flat" else agreement > 0.9


@pytest.mark.parametrize("index", ["HNSW16", "IVF8,Flat"])
def test_faiss_builds_the_same_index_twice(index):
    pytest.importorskip("faiss")
    queries, vectors = data(50, 16), data(2000, 16, seed=1)
    first = FaissSearch(vectors, index).candidates(queries, 5)
    np.testing.assert_array_equal(first, FaissSearch(vectors, index).candidates(queries, 5))


def test_faiss_errors_name_the_string():
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match="'nonsense'"):
        check_index("nonsense")
    with pytest.raises(ValueError, match="'Flat;nonsense=1'"):
        check_index("Flat;nonsense=1", 16)
    with pytest.raises(ValueError, match="'IVF64,Flat' from 10 vectors"):
        FaissSearch(data(10, 4), "IVF64,Flat")
    check_index("IVF64,PQ8")


def test_index_must_be_a_string():
    with pytest.raises(TypeError, match="string"):
        check_index(None)


def test_absent_faiss_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    check_index("auto")
    with pytest.raises(ImportError, match=r'pip install "skad\[cpu\]"'):
        check_index("Flat")


def test_a_gpu_takes_more_queries_of_a_smaller_bank():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert {queries_at_once(cpu, n) for n in (1, 784, 10**6)} == {1024}
    assert queries_at_once(gpu, 10**6) == 1024
    assert queries_at_once(gpu, 784) * 784 <= 1 << 26 < (queries_at_once(gpu, 784) + 1) * 784
