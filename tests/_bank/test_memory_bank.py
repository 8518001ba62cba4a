"""The memory bank: search by image, exclusion, neighbours, re-weighting, state."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from brute_force import brute_force

from skad._bank import MemoryBank
from skad._scoring import plain

BANK = [[0.0, 0], [1, 0], [0, 2], [4, 4], [5, 4]]
QUERIES = [[0.2, 0.1], [1, 1], [3, 3], [8, 8]]


def data(n, d, seed=0):
    return np.random.default_rng(seed).normal(3, 1, (n, d)).astype(np.float32)


def make_bank(m=300, d=16, index="auto"):
    return MemoryBank(data(m, d, seed=1), np.arange(m) // 10, index)


def reweight(bank, queries, distances, ids, b, **params):
    """Weights of Eq. 7 for queries whose nearest vectors are known."""
    return plain.reweight(distances[..., 0], bank.distances_around(queries, ids, b, **params))


def test_keeps_contiguous_float32_and_int64():
    bank = MemoryBank(data(6, 8).astype(np.float64)[:, ::2], [0, 0, 1, 1, 2, 2])
    assert (bank.vectors.dtype, bank.sources.dtype) == (np.float32, np.int64)
    assert bank.vectors.flags.c_contiguous
    assert (len(bank), bank.vectors.shape) == (6, (6, 4))


def test_searches_exactly():
    bank, queries = make_bank(), data(40, 16)
    distances, ids = bank.search(torch.from_numpy(queries), 3)
    expected, expected_ids = brute_force(queries, bank.vectors, 3)
    np.testing.assert_allclose(distances, expected, rtol=1e-14)
    np.testing.assert_array_equal(ids, expected_ids)


@pytest.mark.parametrize("index", ["auto", "Flat", "IVF4,Flat"])
def test_an_image_scores_the_same_in_any_batch(index):
    if index != "auto":
        pytest.importorskip("faiss")
    bank, images = make_bank(2500, 64, index), data(7 * 49, 64).reshape(7, 49, 64)
    together = bank.search(images, 3)
    assert together[0].shape == together[1].shape == (7, 49, 3)
    reverse = bank.search(images[::-1].copy(), 3)
    for i in range(7):
        alone = bank.search(images[i], 3)
        for part, one in enumerate(alone):
            np.testing.assert_array_equal(one, together[part][i])
            np.testing.assert_array_equal(one, reverse[part][6 - i])


@pytest.mark.parametrize("index", ["auto", "IVF4,Flat"])
def test_exclude_source_is_exact(index):
    bank, queries = make_bank(index=index), data(30, 16)
    _, ids = bank.search(queries, 4, exclude_source=7)
    assert not (bank.sources[ids] == 7).any()
    expected = brute_force(queries, bank.vectors, 4, bank.sources == 7)[1]
    np.testing.assert_array_equal(ids, expected)


def test_every_query_may_leave_out_an_image_of_its_own():
    bank, queries = make_bank(2500), data(300, 16)
    sources = np.arange(300) % 60 - 1  # no image has the number -1
    distances, ids = bank.search(queries, 3, exclude_source=sources)
    weights = reweight(bank, queries, distances, ids, 4, exclude_source=sources)
    for source in (-1, 0, 17, 58):
        here = sources == source
        alone = bank.search(queries[here], 3, exclude_source=source)
        np.testing.assert_array_equal(ids[here], alone[1])
        np.testing.assert_array_equal(distances[here], alone[0])
        expected = reweight(bank, queries[here], *alone, 4, exclude_source=source)
        np.testing.assert_array_equal(weights[here], expected)


def test_the_query_with_fewest_vectors_left_decides():
    bank = MemoryBank(data(5, 4), [0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match="between 1 and the 2"):
        bank.search(data(2, 4), 3, exclude_source=np.array([1, 0]))
    found = bank.search(data(2, 4), 3, exclude_source=np.array([1, -1]))
    assert found[1].shape == (2, 3)
    assert bank.search(data(0, 4), 3, exclude_source=np.array([], dtype=int))[1].shape == (0, 3)


def test_too_few_vectors():
    bank = MemoryBank(data(5, 4), [0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match="between 1 and the 5"):
        bank.search(data(2, 4), 6)
    with pytest.raises(ValueError, match="between 1 and the 2"):
        bank.search(data(2, 4), 3, exclude_source=0)
    with pytest.raises(ValueError, match="expected queries"):
        bank.search(data(2, 3), 1)


def test_sparse_inverted_lists_are_completed():
    pytest.importorskip("faiss")
    bank = make_bank(200, 8, "IVF40,Flat")
    distances, ids = bank.search(data(30, 8), 20)
    assert ids.min() >= 0
    assert np.isfinite(distances).all()
    assert all(len(set(row)) == 20 for row in ids.tolist())


def test_missing_faiss_is_said_at_search(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert make_bank().search(data(2, 16), 1)[0].shape == (2, 1)
    with pytest.raises(ImportError, match="skad"):
        make_bank(index="Flat").search(data(2, 16), 1)


@pytest.mark.parametrize(
    ("b", "weights"),
    [
        (3, [0.8779502068938394, 0.7516367449884344, 0.8891129705992518, 0.9933924434167962]),
        (5, [0.9982801230509932, 0.9881271461012927, 0.971333718668239, 0.9989818081750962]),
        (99, [0.9982801230509932, 0.9881271461012927, 0.971333718668239, 0.9989818081750962]),
    ],
)
def test_reweight_against_the_vectors(b, weights):
    bank = MemoryBank(BANK, [0] * 5)
    distances, ids = bank.search(QUERIES, 2)
    assert ids[:, 0].tolist() == [0, 1, 3, 4]
    # Queries are float32: 0.1 and 0.2 are not what they are in float64.
    np.testing.assert_allclose(reweight(bank, QUERIES, distances, ids, b), weights, rtol=1e-7)
    exactly = reweight(bank, QUERIES[1:], distances[1:], ids[1:], b)
    np.testing.assert_allclose(exactly, weights[1:], rtol=1e-12)
    one = reweight(bank, QUERIES[1], distances[1], ids[1], b)
    assert one == pytest.approx(weights[1], rel=1e-12)


def test_reweighting_can_change_the_order():
    bank = MemoryBank([[0, 0], [0.1, 0], [0, 0.1], [10, 0]], [0] * 4)
    queries = [[-1, 0], [10, 0.98]]
    distances, ids = bank.search(queries, 1)
    weights = reweight(bank, queries, distances, ids, 3)
    np.testing.assert_allclose(weights, [0.6784742640568955, 0.9999394833006026], rtol=1e-7)
    raw = distances[:, 0]
    assert raw[0] > raw[1]
    assert (weights * raw)[0] < (weights * raw)[1]


def test_reweight_without_the_image_itself():
    bank, own = make_bank(300), np.arange(300) // 10 == 4
    images = bank.vectors[own]
    distances, ids = bank.search(images, 1, exclude_source=4)
    got = reweight(bank, images, distances, ids, 5, exclude_source=4)
    smaller = MemoryBank(bank.vectors[~own], bank.sources[~own])
    expected = reweight(smaller, images, *smaller.search(images, 1), 5)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_reweight_where_nearly_all_around_belong_to_the_image_itself():
    own = 0.01 * np.arange(1, 31)[:, None]
    others = np.array([[0.0], [5.0], [7.0], [11.0]])
    bank = MemoryBank(np.concatenate([own, others]), [1] * 30 + [0] * 4)
    query = [[0.2]]
    got = reweight(bank, query, *bank.search(query, 1, exclude_source=1), 3, exclude_source=1)
    alone = MemoryBank(others, [0] * 4)
    assert got == reweight(alone, query, *alone.search(query, 1), 3)


def test_reweight_does_not_depend_on_what_else_is_asked():
    bank, queries = make_bank(1000), data(50, 16)
    distances, ids = bank.search(queries, 1)
    together = reweight(bank, queries, distances, ids, 9)
    alone = [
        reweight(make_bank(1000), queries[i : i + 1], distances[i : i + 1], ids[i : i + 1], 9)[0]
        for i in range(5)
    ]
    np.testing.assert_array_equal(together[:5], alone)


def test_reweight_needs_two():
    bank = MemoryBank(BANK, [0, 0, 0, 0, 1])
    with pytest.raises(ValueError, match="b >= 2"):
        reweight(bank, QUERIES, *bank.search(QUERIES, 1), 1)
    with pytest.raises(ValueError, match="1 vectors"):
        reweight(bank, QUERIES, *bank.search(QUERIES, 1), 3, exclude_source=0)


@pytest.mark.parametrize("index", ["auto", "Flat"])
def test_pickles_numpy_alone(index):
    if index == "Flat":
        pytest.importorskip("faiss")
    bank, queries = make_bank(index=index), data(20, 16)
    untouched = pickle.dumps(bank)
    expected = bank.search(queries, 2)
    reweight(bank, queries, *expected, 4)
    pickled = pickle.dumps(bank)
    assert pickled == untouched
    assert b"torch" not in pickled
    assert b"faiss" not in pickled
    for other in (pickle.loads(pickled), copy.deepcopy(bank)):
        for got, wanted in zip(other.search(queries, 2), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.filterwarnings("error")
def test_read_only_vectors_do_not_warn():
    vectors = data(20, 4)
    vectors.flags.writeable = False
    assert MemoryBank(vectors, np.zeros(20)).search(data(3, 4), 1)[1].shape == (3, 1)


@pytest.mark.parametrize("index", ["auto", "IVF4,Flat"])
def test_threads_share_a_bank(index):
    if index != "auto":
        pytest.importorskip("faiss")
    queries = data(49, 16)
    expected = make_bank(index=index).search(queries, 2)
    for _ in range(3):
        bank = make_bank(index=index)

        def score(_, bank=bank):
            distances, ids = bank.search(queries, 2)
            return distances, ids, reweight(bank, queries, distances, ids, 5)

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(score, range(16)))
        for distances, ids, weights in results:
            np.testing.assert_array_equal(distances, expected[0])
            np.testing.assert_array_equal(ids, expected[1])
            np.testing.assert_array_equal(weights, results[0][2])


@pytest.mark.parametrize(
    ("vectors", "sources", "message"),
    [
        (np.ones(3), [0], "shape"),
        (np.ones((0, 3)), [], "shape"),
        (np.ones((2, 3)), [0], "one source"),
        ([[np.nan, 0]], [0], "NaN"),
    ],
)
def test_constructor_errors(vectors, sources, message):
    with pytest.raises(ValueError, match=message):
        MemoryBank(vectors, sources)
