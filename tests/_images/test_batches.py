"""Order, bounds and endings of the stream."""

import threading
import time

import numpy as np
import pytest
from joblib import Parallel, delayed
from PIL import Image

from skad._images import CanvasCache, Geometry, as_image_source, iter_batches

SQUASH = Geometry("squash", 8)


class Counting:
    """A source that counts, and may be slow or fail."""

    def __init__(self, n, fail_at=None, seconds=0.0):
        self.n, self.fail_at, self.seconds = n, fail_at, seconds
        self.loads = 0
        self.threads = set()
        self.lock = threading.Lock()

    def __len__(self):
        return self.n

    def stacked(self, indices):
        return None

    def load(self, i):
        with self.lock:
            self.loads += 1
            self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds * (1 + (i * 7) % 5))  # out of order
        if i == self.fail_at:
            raise ValueError(f"image {i}: broken")
        return np.full((8, 8, 3), i % 256, dtype=np.uint8)


def image_threads():
    return [t for t in threading.enumerate() if t.name.startswith("skad-images")]


@pytest.fixture(autouse=True)
def no_thread_survives():
    yield
    assert not image_threads()


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(23)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (10 + i, 30 - i, 3)).astype(np.uint8)).save(path)
    return paths


# --------------------------------------------------------------------------- content


@pytest.mark.parametrize("n_workers", [0, 1, 2, 4, None])
@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_order_and_shapes(paths, n_workers, batch_size):
    source = as_image_source(paths)
    batches = list(iter_batches(source, SQUASH, batch_size, n_workers=n_workers))
    assert [b.start for b in batches] == list(range(0, 23, batch_size))
    assert [len(b.pixels) for b in batches][:-1] == [batch_size] * (len(batches) - 1)
    assert [s for b in batches for s in b.shapes] == [(10 + i, 30 - i) for i in range(23)]
    expected = np.stack([SQUASH.apply(source.load(i)) for i in range(23)])
    np.testing.assert_array_equal(np.concatenate([b.pixels for b in batches]), expected)
    assert all(b.pixels.dtype == np.uint8 for b in batches)


def test_slow_images_keep_their_place():
    batches = iter_batches(Counting(40, seconds=0.001), SQUASH, 7, n_workers=4)
    seen = np.concatenate([b.pixels[:, 0, 0, 0] for b in batches])
    np.testing.assert_array_equal(seen, np.arange(40))


@pytest.mark.parametrize("mode", ["squash", "pad", "crop"])
def test_worker_count_changes_nothing(paths, mode):
    source, geometry = as_image_source(paths), Geometry(mode, 16)
    none, four = (list(iter_batches(source, geometry, 4, n_workers=n)) for n in (0, 4))
    for a, b in zip(none, four, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)
        assert (a.start, a.shapes) == (b.start, b.shapes)


def test_floats_and_8_bits_in_one_batch():
    eight = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    fine = np.random.default_rng(1).uniform(size=(8, 8, 3))
    first, second, third = iter_batches(
        as_image_source([eight, fine, eight, eight, fine]), SQUASH, 2, n_workers=2
    )
    assert first.pixels.dtype == np.float32
    np.testing.assert_array_equal(first.pixels[0], eight.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(first.pixels[1], fine.astype(np.float32))
    assert second.pixels.dtype == np.uint8
    assert third.pixels.dtype == np.float32
    assert third.pixels.shape == (1, 8, 8, 3)


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 9, 8, 3)])
def test_what_is_brought_to_the_canvas_does_not_alias_the_users_array(shape):
    images = np.zeros(shape, dtype=np.uint8)
    (batch,) = iter_batches(as_image_source(images), SQUASH, 2)
    assert not np.shares_memory(batch.pixels, images)


def test_empty_subset(paths):
    source = as_image_source(paths).subset([])
    assert list(iter_batches(source, SQUASH, 4)) == []


@pytest.mark.parametrize(
    ("batch_size", "n_workers", "message"),
    [(0, 1, "batch_size"), (2.5, 1, "batch_size"), (1, -1, "n_workers"), (1, 1.5, "n_workers")],
)
def test_bad_numbers_fail_at_the_call(batch_size, n_workers, message):
    with pytest.raises(ValueError, match=message):
        iter_batches(Counting(3), SQUASH, batch_size, n_workers=n_workers)


# --------------------------------------------------------------------------- work ahead


@pytest.mark.parametrize("n_workers", [1, 3])
def test_bounded_work_ahead(n_workers):
    source, batch_size = Counting(200), 10
    stream = iter_batches(source, SQUASH, batch_size, n_workers=n_workers)
    assert source.loads == 0
    for consumed, _ in enumerate(stream, start=1):
        time.sleep(0.01)  # let the workers run as far ahead as they may
        assert source.loads <= (consumed + 1) * batch_size + n_workers
        if consumed == 5:
            assert source.loads >= (consumed + 1) * batch_size
            break
    stream.close()


def test_no_workers_means_no_threads():
    source = Counting(20)
    next(iter_batches(source, SQUASH, 4, n_workers=0))
    assert source.threads == {threading.current_thread().name}
    assert source.loads == 4


def test_an_image_alone_needs_no_thread():
    source = Counting(1)
    list(iter_batches(source, SQUASH, 4, n_workers=4))
    assert source.threads == {threading.current_thread().name}


def test_no_more_threads_than_images():
    source = Counting(2, seconds=0.01)
    stream = iter_batches(source, SQUASH, 1, n_workers=8)
    next(stream)
    assert len(image_threads()) <= 2
    stream.close()


# --------------------------------------------------------------------------- endings


@pytest.mark.parametrize("n_workers", [0, 4])
def test_an_error_comes_in_its_turn(n_workers):
    stream = iter_batches(Counting(50, fail_at=17), SQUASH, 5, n_workers=n_workers)
    with pytest.raises(ValueError, match=r"^image 17: broken"):
        list(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_the_batches_before_an_error_arrive():
    starts = []
    stream = iter_batches(Counting(50, fail_at=17), SQUASH, 5, n_workers=4)
    with pytest.raises(ValueError, match="image 17"):  # noqa: PT012
        for batch in stream:
            starts.append(batch.start)
    assert starts == [0, 5, 10]


def test_a_damaged_file_among_many(paths):
    paths[11].write_bytes(paths[11].read_bytes()[:200])
    with pytest.raises(ValueError, match=r"^image 11 \('.*11\.png'\): "):
        list(iter_batches(as_image_source(paths), SQUASH, 4, n_workers=2))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_consumer_cancels_the_rest(error):
    source = Counting(10_000, seconds=0.0005)
    stream = iter_batches(source, SQUASH, 50, n_workers=4)
    started = time.perf_counter()
    with pytest.raises(error):  # noqa: PT012
        try:
            for _ in stream:
                raise error
        finally:
            stream.close()
    assert time.perf_counter() - started < 2
    assert source.loads < 200


def test_a_dropped_stream_ends():
    source = Counting(10_000, seconds=0.0005)
    stream = iter_batches(source, SQUASH, 50, n_workers=4)
    next(stream)
    del stream
    assert not image_threads()
    assert source.loads < 200


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_streams_in_joblib(paths, backend):
    source = as_image_source(paths)
    expected = sum(int(b.pixels.sum()) for b in iter_batches(source, SQUASH, 4))
    sums = Parallel(n_jobs=2, backend=backend)(
        delayed(lambda: sum(int(b.pixels.sum()) for b in iter_batches(source, SQUASH, 4)))()
        for _ in range(3)
    )
    assert sums == [expected] * 3


@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_order_of_ones_own(n_workers):
    source, order = Counting(6), np.array([5, 0, 0, 3, 2])
    batches = list(iter_batches(source, SQUASH, 2, n_workers=n_workers, order=order))
    assert [len(batch.shapes) for batch in batches] == [2, 2, 1]
    assert [batch.start for batch in batches] == [0, 2, 4]
    found = np.concatenate([batch.pixels[:, 0, 0, 0] for batch in batches])
    np.testing.assert_array_equal(found, order)


def test_a_cache_saves_the_second_reading():
    source, cache = Counting(5), CanvasCache(None)
    first = list(iter_batches(source, SQUASH, 2, cache=cache))
    again = list(iter_batches(source, SQUASH, 2, cache=cache))
    assert source.loads == 5
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)
        assert a.shapes == b.shapes


def test_a_cache_keeps_what_fits():
    image = 8 * 8 * 3
    source, cache = Counting(5), CanvasCache(2 * image + 1)
    for _ in range(2):
        list(iter_batches(source, SQUASH, 2, n_workers=0, cache=cache))
    assert cache.n_bytes == 2 * image
    assert source.loads == 5 + 3


# --------------------------------------------------------------------------- images that lie ready


@pytest.fixture
def ready():
    return np.random.default_rng(1).integers(0, 256, (11, 8, 8, 3)).astype(np.uint8)


def one_by_one(images, geometry, **params):
    """The same stream from a list, which is decoded image by image."""
    return list(iter_batches(as_image_source(list(images)), geometry, 4, **params))


@pytest.mark.parametrize("geometry", [SQUASH, Geometry("pad", 8), Geometry("crop", 8, 8)])
def test_images_on_the_canvas_are_not_copied(ready, geometry):
    batches = list(iter_batches(as_image_source(ready), geometry, 4, n_workers=4))
    for batch, expected in zip(batches, one_by_one(ready, geometry), strict=True):
        assert batch.start == expected.start
        assert batch.shapes == expected.shapes
        np.testing.assert_array_equal(batch.pixels, expected.pixels)
        assert np.shares_memory(batch.pixels, ready)


@pytest.mark.parametrize("chosen", [[3, 1, 2], [5, 6, 7, 8, 9, 10], np.arange(11) % 2 == 0, [4]])
def test_ready_images_of_a_subset_in_an_order(ready, chosen):
    source = as_image_source(ready).subset(chosen)
    order = np.arange(len(source))[::-1]
    for params in ({}, {"order": order}):
        found = list(iter_batches(source, SQUASH, 4, **params))
        expected = one_by_one(ready[chosen], SQUASH, **params)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a.pixels, b.pixels)


@pytest.mark.parametrize(
    "change",
    [
        lambda X: X[::-1],
        lambda X: X[:, ::-1],
        lambda X: np.asfortranarray(X),
        lambda X: np.broadcast_to(X[:1], X.shape),
    ],
    ids=["backwards", "upside down", "Fortran", "read-only"],
)
def test_ready_images_are_contiguous_and_writable(ready, change):
    images = change(ready)
    for batch, expected in zip(
        iter_batches(as_image_source(images), SQUASH, 4), one_by_one(images, SQUASH), strict=True
    ):
        assert batch.pixels.flags.c_contiguous
        assert batch.pixels.flags.writeable
        np.testing.assert_array_equal(batch.pixels, expected.pixels)


@pytest.mark.parametrize(
    ("images", "geometry"),
    [
        (np.zeros((5, 8, 8), dtype=np.uint8), SQUASH),
        (np.zeros((5, 8, 8, 4), dtype=np.uint8), SQUASH),
        (np.zeros((5, 8, 8, 3), dtype=np.float32), SQUASH),
        (np.zeros((5, 8, 9, 3), dtype=np.uint8), SQUASH),
        (np.zeros((5, 8, 8, 3), dtype=np.uint8), Geometry("crop", 8)),
    ],
    ids=["grey", "alpha", "float", "other size", "crop"],
)
def test_other_images_are_brought_to_the_canvas(images, geometry):
    for batch in iter_batches(as_image_source(images), geometry, 4):
        assert batch.pixels.shape[1:] == (8, 8, 3)
        assert not np.shares_memory(batch.pixels, images)
