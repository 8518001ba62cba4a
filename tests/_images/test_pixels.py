"""The numbers of the canonical image."""

import numpy as np
import pytest
import torch

from skad._images.pixels import canonical


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_every_8_bit_level_survives_division(dtype):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = canonical(levels.astype(dtype) / dtype(255), "x")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[:, :, 0], levels)


def test_one_value_between_the_levels_makes_floats():
    values = np.zeros((4, 4))
    values[3, 3] = 0.5
    pixels = canonical(values, "x")
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels[:, :, 1], values.astype(np.float32))


@pytest.mark.parametrize("row", [0, 1, 50, 99])
def test_no_value_between_the_levels_is_overlooked(row):
    values = np.zeros((100, 4))
    values[row, 2] = 0.5
    assert canonical(values, "x")[row, 2, 0] == 0.5


def test_half_precision_is_float():
    values = np.linspace(0, 1, 16).reshape(4, 4).astype(np.float16)
    pixels = canonical(values, "x")
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels[:, :, 0], values.astype(np.float32))


def test_bool():
    pixels = canonical(np.array([[True, False]]), "x")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[:, :, 0], [[255, 0]])


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int64", "uint64"])
def test_other_integers_are_8_bit(dtype):
    pixels = canonical(np.array([[0, 127]], dtype=dtype), "x")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[:, :, 0], [[0, 127]])


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_16_bit_of_either_byte_order(dtype):
    pixels = canonical(np.array([[0, 256, 65535]], dtype=dtype), "x")
    np.testing.assert_allclose(pixels[0, :, 0], [0, 256 / 65535, 1], rtol=1e-6)


def test_a_hair_beyond_the_range_is_clipped():
    values = np.array([[-5e-7, 0.3, 1 + 5e-7]])
    pixels = canonical(values, "x")
    assert pixels.min() == 0
    assert pixels.max() == 1
    with pytest.raises(ValueError, match=r"^x: floats must lie in 0\.\.1"):
        canonical(values * 1.00001, "x")


def test_alpha_is_not_looked_at():
    values = np.full((2, 2, 4), 0.3)
    values[:, :, 3] = np.nan
    assert canonical(values, "x").shape == (2, 2, 3)


def test_the_input_is_left_alone():
    values = np.random.default_rng(0).uniform(size=(4, 4, 3)).astype(np.float32)
    before = values.copy()
    canonical(values, "x")
    np.testing.assert_array_equal(values, before)


def test_bfloat16_tensor():
    from skad._images import as_image_source

    tensor = torch.full((4, 4), 0.3).to(torch.bfloat16)
    np.testing.assert_array_equal(
        as_image_source([tensor]).load(0)[:, :, 0], tensor.float().numpy()
    )
