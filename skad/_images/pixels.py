"""Numbers of any type and layout -> the canonical image.

The canonical image is uint8 (H, W, 3) where 8 bits hold the image exactly, else float32 (H, W, 3)
in 0..1. One image must become the same pixels whether it comes as a file, as a uint8 array or as
floats divided by 255: only then are the scores bitwise equal, so the type of the numbers is
settled here, by their values, before anything is resized.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skad._common.text import shortened

CHANNELS = (1, 3, 4)
# Resizing and colour conversion leave floats a few ulps outside 0..1.
_OVERSHOOT = 1e-6
# In units of 1/255. float32 keeps k/255 to 2e-5; the nearest 16-bit level is 4e-3 away.
_EIGHT_BIT_TOLERANCE = 1e-3


def canonical(array: np.ndarray, name: str) -> np.ndarray:
    """Bring one image of any accepted type and layout into canonical form.

    Parameters
    ----------
    array : ndarray of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
        bool; uint8 (0..255); uint16 (0..65535); other integers, all within 0..255; floats, all
        within 0..1. A fourth channel is alpha and is dropped.
    name : str
        How errors call the image.

    Returns
    -------
    ndarray of shape (H, W, 3)
        uint8 (0..255) or float32 (0..1). May be a view of `array`: not to be written into.

    Raises
    ------
    ValueError
        If layout, type or range is none of the above, or a value is NaN or infinite.
    """
    channels = _colour_channels(array, name)
    pixels = _scaled(channels, name)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def strip(row: np.ndarray, name: str) -> np.ndarray:
    """Show one row of a table as a grey image that is one pixel high.

    Parameters
    ----------
    row : ndarray of shape (F,)
        Numbers of any type: they are measurements, not pixels, and are taken as they are. The same
        numbers must score the same, and a table may hold them in one type today, in another
        tomorrow.
    name : str
        How errors call the image.

    Returns
    -------
    ndarray of shape (1, F, 3), float32

    Raises
    ------
    ValueError
        If a value is NaN, infinite, or beyond float32.
    """
    with np.errstate(over="ignore"):  # reported below, with the name of the image
        values = row.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: contains NaN, infinity or a value too large for float32.")
    return np.repeat(values[None, :, None], 3, axis=2)


def check_pixels(array: np.ndarray, name: str) -> None:
    """Raise what `canonical` would raise, without making the image.

    Parameters
    ----------
    array : ndarray
        See `canonical`.
    name : str
        How errors call the image.

    Raises
    ------
    ValueError
        See `canonical`.
    """
    _check_numbers(_colour_channels(array, name), name)


def check_layout(shape: tuple[int, ...], name: str) -> tuple[int, int]:
    """Check the shape of an image.

    Parameters
    ----------
    shape : tuple of int
        (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
    name : str
        How errors call the image.

    Returns
    -------
    height, width : int

    Raises
    ------
    ValueError
        If the shape is another, or has no pixels.
    """
    if len(shape) != 2 and not (len(shape) == 3 and shape[2] in CHANNELS):
        raise ValueError(f"{name}: {_layout_problem(shape)}")
    if 0 in shape:
        raise ValueError(f"{name}: has no pixels.")
    return shape[0], shape[1]


def _colour_channels(array: np.ndarray, name: str) -> np.ndarray:
    """View an image as (H, W, 1) or (H, W, 3), without alpha."""
    check_layout(array.shape, name)
    return array[:, :, None] if array.ndim == 2 else array[:, :, :3]


def _layout_problem(shape: tuple[int, ...]) -> str:
    wanted = "an image must have the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if len(shape) == 3 and shape[0] in CHANNELS:
        return (
            f"{wanted}, channels last (NHWC); got {shape}, which looks channels-first. "
            "Transpose it: np.moveaxis(image, 0, -1), or image.permute(1, 2, 0) for a tensor."
        )
    return f"{wanted}; got {shape}."


def _has_pixel_range(dtype: np.dtype[Any]) -> bool:
    """Whether the type alone says what white is."""
    return dtype.kind == "b" or (dtype.kind == "u" and dtype.itemsize <= 2)


def _check_numbers(array: np.ndarray, name: str) -> None:
    """Refuse types that are no pixels and values outside their range."""
    if _has_pixel_range(array.dtype):
        return
    if array.dtype.kind not in "iuf":
        raise ValueError(
            f"{name}: pixels must be numbers or bool; got dtype {shortened(str(array.dtype), 60)}."
        )
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name}: contains NaN or infinity.")
    found = f"got {low:.6g}..{high:.6g} as {array.dtype}"
    if array.dtype.kind == "f" and (low < -_OVERSHOOT or high > 1 + _OVERSHOOT):
        raise ValueError(f"{name}: floats must lie in 0..1; {found}. Divide by 255, or pass uint8.")
    if array.dtype.kind != "f" and (low < 0 or high > 255):
        raise ValueError(
            f"{name}: integers must lie in 0..255 unless they are uint16; {found}. "
            "Pass 16-bit images as uint16, others as floats in 0..1."
        )


def _scaled(array: np.ndarray, name: str) -> np.ndarray:
    """Scale pixels by the range of their type: uint8 where that is exact, else float32 in 0..1."""
    _check_numbers(array, name)
    kind, itemsize = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind == "u" and itemsize == 2:
        return _from_16_bit(array)
    if kind == "f":
        return _from_float(array)
    return array.astype(np.uint8, copy=False)


def _from_16_bit(array: np.ndarray) -> np.ndarray:
    # 65535 / 255 = 257: these are the 16-bit levels that 8 bits hold.
    if not (array % 257).any():
        return (array // 257).astype(np.uint8)
    return array.astype(np.float32) / np.float32(65535)


def _from_float(array: np.ndarray) -> np.ndarray:
    # A few rows tell most float images apart from 8-bit ones, at a fraction of the cost.
    if _eight_bit_levels(array[:: max(1, len(array) // 8)]) is not None:
        levels = _eight_bit_levels(array)
        if levels is not None:
            return levels
    return np.clip(array.astype(np.float32, copy=False), 0, 1)


def _eight_bit_levels(array: np.ndarray) -> np.ndarray | None:
    """Give the 8-bit image that floats are a 255th of; None if they are none."""
    # float64 stays: the tolerance is about the values, not about the cast. Half precision is
    # upcast, or its levels could not be told apart.
    # NumPy 1 would multiply half precision in half precision.
    distance = np.multiply(array, 255, dtype=np.promote_types(array.dtype, np.float32))
    levels = np.rint(distance)
    distance -= levels
    if np.abs(distance, out=distance).max() >= _EIGHT_BIT_TOLERANCE:
        return None
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)
