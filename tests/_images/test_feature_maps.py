"""Feature maps in place of images: read in order, from memory or not, and checked before."""

import numpy as np
import pytest
import torch

from skad._images import FeatureSource, as_feature_maps

CANVAS = (32, 40)


@pytest.fixture
def maps():
    return np.random.default_rng(0).normal(size=(6, 4, 5, 7)).astype(np.float32)


class Lazy:
    """An array that is read by slices and numbers alone."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def __len__(self):
        return len(self._array)

    def __getitem__(self, i):
        assert isinstance(i, (int, slice))
        return self._array[i]


def mapped(maps, tmp_path):
    np.save(tmp_path / "maps.npy", maps)
    return np.load(tmp_path / "maps.npy", mmap_mode="r")


@pytest.mark.parametrize(
    "kind",
    [
        lambda maps, _: maps,
        mapped,
        lambda maps, _: Lazy(maps),
        lambda maps, _: torch.from_numpy(maps),
        lambda maps, _: maps.astype(np.float64),
        lambda maps, _: np.asfortranarray(maps),
    ],
    ids=["array", "mapped", "lazy", "tensor", "float64", "fortran"],
)
def test_all_kinds_are_read_alike(maps, kind, tmp_path):
    source = FeatureSource(as_feature_maps(kind(maps, tmp_path)), CANVAS)
    assert (len(source), source.map_shape, source.shape(0)) == (6, (4, 5, 7), CANVAS)
    batches = list(source.batches(4))
    assert [batch.start for batch in batches] == [0, 4]
    assert [len(batch.frames) for batch in batches] == [4, 2]
    assert {frame.shape for batch in batches for frame in batch.frames} == {CANVAS}
    found = np.concatenate([batch.pixels for batch in batches])
    assert found.dtype == np.float32
    assert np.array_equal(found, maps)
    chosen = source.subset([0, 2, 3])
    assert np.array_equal(chosen.read(range(3)), maps[[0, 2, 3]])
    assert np.array_equal(chosen.read(range(1, 3)), maps[2:4])
    assert chosen.describe(1) == "feature map 2"
    assert [shape for _, shape in chosen.known_shapes()] == [CANVAS] * 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(maps, value):
    maps[3, 1, 2, 4] = value
    source = FeatureSource(maps, CANVAS)
    source.subset([0, 1, 2, 4]).check()
    with pytest.raises(ValueError, match="feature map 3: holds NaN or infinity"):
        source.subset([0, 3, 5]).check()


def test_beyond_float32_is_not_finite(maps):
    maps = maps.astype(np.float64)
    maps[1, 0, 0, 0] = 1e300
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="feature map 1: "):
        FeatureSource(maps, CANVAS).check()


def test_there_is_nothing_to_show(maps):
    with pytest.raises(TypeError, match="feature map 2 has no pixels"):
        FeatureSource(maps, CANVAS).load(2)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (list, TypeError, r"got list\. Join them: np\.stack"),
        (lambda maps: [f"{i}.png" for i in range(3)], TypeError, "got list"),
        (lambda maps: "features.npy", TypeError, "got str"),
        (lambda maps: maps[0], ValueError, r"got \(4, 5, 7\)\. A single map: pass X\[None\]"),
        (lambda maps: maps.mean((1, 2)), ValueError, r"got \(6, 7\)\. Rows are"),
        (lambda maps: maps[None], ValueError, r"got \(1, 6, 4, 5, 7\)\."),
        (lambda maps: maps[:0], ValueError, r"found 0 sample\(s\)"),
        (lambda maps: maps[:, :0], ValueError, "holds no numbers"),
        (lambda maps: maps.astype(np.uint8), ValueError, "of floats; got uint8"),
        (lambda maps: maps.astype(complex), ValueError, "of floats; got complex128"),
        (lambda maps: np.ma.masked_less(maps, 0), ValueError, "masked"),
    ],
)
def test_what_is_no_array_of_maps(maps, change, error, said):
    with pytest.raises(error, match=said):
        as_feature_maps(change(maps))
