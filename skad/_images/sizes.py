"""Sizes of canvases and tiles, as users write them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

Size = int | tuple[int, int]
"""Of a canvas, in pixels: the side of a square, or height and width."""


def height_and_width(size: Size) -> tuple[int, int]:
    """Spell a size out.

    Examples
    --------
    >>> height_and_width(224), height_and_width((160, 320))
    ((224, 224), (160, 320))
    """
    return size if isinstance(size, tuple) else (size, size)


def as_size(value: Any) -> Size:
    """Read a size as a user writes it; what is square is a number.

    Parameters
    ----------
    value : int or sequence of two ints

    Returns
    -------
    int or tuple of two ints

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> as_size([160, 320]), as_size((224, 224))
    ((160, 320), 224)
    """
    sides = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value, value)
    if isinstance(value, str) or len(sides) != 2 or not all(map(is_side, sides)):
        raise ValueError(
            "image_size must be a positive integer, the side of a square, or two: (height, width); got "
            f"{value!r}."
        )
    height, width = map(int, sides)
    return height if height == width else (height, width)


def is_side(size: object) -> bool:
    """Tell whether a value is a positive integer."""
    return isinstance(size, Integral) and not isinstance(size, bool) and int(size) > 0
