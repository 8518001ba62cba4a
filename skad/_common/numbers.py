"""Users' arrays with a value per pixel or per image: masks, scores, maps."""

from __future__ import annotations

from typing import Any

import numpy as np


def refuse_masked(values: Any, name: str) -> None:
    """Refuse a masked array of NumPy's: read as a plain array, its masked entries would be values.

    Parameters
    ----------
    values : object
    name : str
        How the error calls it.

    Raises
    ------
    ValueError
        If something is masked; with the remedy.
    """
    if np.ma.is_masked(values):
        raise ValueError(
            f"{name}: holds masked values, which are not known. Fill them in: a.filled(value)."
        )


def marked(mask: Any, name: str) -> np.ndarray:
    """Find the pixels of a mask that are not zero.

    Parameters
    ----------
    mask : array-like
        bool, integers or floats.
    name : str
        How errors call it.

    Returns
    -------
    ndarray of bool, of the same shape

    Raises
    ------
    ValueError
        For other types, of which every value would count as marked, for NaN and infinity, and where
        pixels are masked.
    """
    refuse_masked(mask, name)
    numbers = np.asarray(mask)
    if numbers.dtype.kind not in "biuf":
        raise ValueError(
            f"{name}: must hold numbers or bool, non-zero = defective; got dtype "
            f"{str(numbers.dtype)[:40]}. Convert it, mask.astype(float) != 0, or read it if it is a "
            "path, skad.datasets.read_mask(path)."
        )
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise ValueError(
            f"{name}: contains NaN or infinity, which is neither good nor defective. Say what it is: "
            "np.nan_to_num(mask)."
        )
    return numbers != 0
