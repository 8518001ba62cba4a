"""Tiles cover a canvas once, whatever their number and overlap."""

import numpy as np
import pytest
import torch

from skad._images import Geometry, Tiling, as_tiles, make_tiling

FIXED = Tiling(64, 2, 3, (16, 16), 16)
OWN = Tiling((64, 96), None, None, (16, 32), 16)


@pytest.mark.parametrize(
    "tiling", [FIXED, Tiling(64, 1, 1, (16, 16), 16), OWN.of((200, 333)), OWN.of((10, 97))]
)
def test_cores_lie_side_by_side(tiling):
    count = np.zeros(tiling.canvas, dtype=int)
    for tile in tiling:
        count[tile.core] += 1
        assert count[tile.rows, tile.columns].shape == tiling.shape  # it lies on the canvas
        for core, inner, side, length in zip(
            tile.core, tile.inner, (tile.rows, tile.columns), tiling.canvas, strict=True
        ):
            assert core.start - side.start == inner.start
            assert core.stop - core.start == inner.stop - inner.start
            assert core.start in (0, side.start + inner.start)
            assert core.stop == length or core.stop < side.stop
    assert (count == 1).all()


def test_margins_are_cut_off_at_seams_alone():
    first, _, last, *_ = FIXED
    assert first.core == (slice(0, 48), slice(0, 48))
    assert last.inner == (slice(0, 48), slice(16, 64))


@pytest.mark.parametrize("shape", [(1, 1), (64, 96), (65, 97), (500, 1000)])
def test_an_image_has_as_many_tiles_as_it_needs(shape):
    tiling = OWN.of(shape)
    for length, canvas, side in zip(shape, tiling.canvas, tiling.shape, strict=True):
        assert canvas >= length
        assert canvas == side or canvas - length < OWN.stride
    assert tiling.of(tiling.canvas) == tiling
    assert FIXED.of(shape) is FIXED


def test_what_was_cut_is_put_together_again():
    rng = np.random.default_rng(0)
    canvases = rng.random((2, *FIXED.canvas, 3))
    tiles = np.concatenate(
        [FIXED.take([canvas] * len(FIXED), range(len(FIXED))) for canvas in canvases]
    )
    together = np.empty_like(canvases)
    FIXED.paste(tiles, together)
    assert np.array_equal(together, canvases)


def test_grids_of_cells_are_put_together():
    pooled = torch.arange(6 * 8 * 8.0).view(6, 8, 8)
    grid = torch.full((1, *FIXED.grid(8, 8)), torch.nan)
    FIXED.paste(pooled, grid)
    assert grid.shape == (1, 12, 16)
    assert torch.equal(grid[0, :6, :6], pooled[0, :6, :6])
    assert torch.equal(grid[0, 6:, 10:], pooled[5, 2:, 2:])


def test_an_image_that_is_not_resized_lies_in_the_corner():
    geometry = Geometry("native", (64, 96), tiling=OWN)
    image = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    canvas = geometry.apply(image)
    assert canvas.shape == (80, 112, 3)
    assert np.array_equal(canvas[:70, :100], image)
    assert (canvas[70:] == canvas[69]).all()
    assert (canvas[:, 100:] == canvas[:, 99:100]).all()
    back = geometry.restore(canvas[..., 0].astype(np.float32), 70, 100)
    assert np.array_equal(back, image[..., 0])


@pytest.mark.parametrize("tiles", [(2,), (2, 0), 2, "all", (2.0, 2), (True, 2), (1, 2, 3), "22"])
def test_other_tiles_are_refused(tiles):
    with pytest.raises(ValueError, match=r"tiles must be two positive integers.*native"):
        as_tiles(tiles)


def test_tiles_as_users_write_them():
    assert as_tiles(np.array([2, 3])) == (2, 3)
    assert as_tiles("native") == "native"
    assert as_tiles(None) is None


@pytest.mark.parametrize(("size", "remedy"), [(100, "use 96 or 112"), (32, "use 48 or 64")])
def test_a_tile_is_a_multiple_of_the_stride(size, remedy):
    with pytest.raises(ValueError, match=remedy):
        make_tiling((2, 2), size, 16)


def test_margins_grow_with_the_stride_up_to_a_third():
    assert make_tiling((2, 2), 320, 16).margin == (64, 64)
    assert make_tiling((2, 2), 320, 8).margin == (32, 32)
    assert make_tiling((2, 2), (96, 64), 16).margin == (32, 16)
    assert make_tiling(None, 100, 16) is None


def test_grids_must_divide_tiles():
    with pytest.raises(ValueError, match=r"multiple of all strides"):
        FIXED.grid(7, 7)
    with pytest.raises(ValueError, match=r"multiple of all strides"):
        FIXED.grid(2, 2)  # cells of 32 pixels, and margins of 16
    with pytest.raises(ValueError, match="leave nothing"):
        Tiling(64, 2, 2, (32, 16), 16)
    with pytest.raises(TypeError, match=r"tiling\.of"):
        len(OWN)
