"""Labels, read in one place: +1 (good) and -1 (defective), by value and never by dtype.

Every `y` is read here, so that a column of a table means the same to `fit`, to a metric and to a plot.
Training is more lenient than evaluation: scikit-learn passes any numbers to `fit`, which must not fail
on them; an evaluation on anything but +1 and -1 has no meaning.
"""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from skad._common.warn import warn_user

_CODING = "labels must be +1 (good) and -1 (defective)"
_RECODING = "y = np.where(is_defective, -1, 1)"
_SHOWN = 5


class OneClassError(ValueError):
    """Good and defective images are needed, and there is one kind only."""


class CodingError(ValueError):
    """Labels are numbers, but others than +1 and -1."""


def good_images(y: Any, n: int) -> np.ndarray:
    """Find the images to learn from: all but those labelled -1.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, 1), or None
        +1 good, -1 defective. None: all images are good.
    n : int
        Number of images.

    Returns
    -------
    ndarray of shape (n_good,), int
        Ascending.

    Raises
    ------
    ValueError
        If y has another length, holds strings, booleans, None, NaN or a mixture, or labels images
        defective and none good.

    Warns
    -----
    UserWarning
        If y holds other numbers: then all images are learned from.
    """
    if y is None:
        return np.arange(n)
    labels = _read(y, n)
    found = np.unique(labels)
    if -1 in found and 1 not in found:
        raise ValueError(
            f"y holds {_some(found)}: no image is labelled +1 (good), and only good images are "
            f"learned from. Add good images, or recode y: {_RECODING}."
        )
    if np.isin(found, (-1, 1)).all():
        return np.flatnonzero(labels == 1)
    warn_user(
        f"y holds {_some(found)} and is not used: all {n} images count as good and are learned from, "
        f"including defective ones. If y tells them apart, recode it to +1 (good) and -1 (defective): "
        f"{_RECODING}."
    )
    return np.arange(n)


def read_labels(y: Any, n: int) -> np.ndarray:
    """Read the labels of n images for an evaluation.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, 1)
    n : int
        Number of images.

    Returns
    -------
    ndarray of shape (n,), int
        +1 good, -1 defective.

    Raises
    ------
    ValueError
        If y is None, has another length or holds anything but +1 and -1.
    """
    if y is None:
        raise ValueError(f"y is needed: {_CODING}.")
    labels = _read(y, n)
    found = np.unique(labels)
    if not np.isin(found, (-1, 1)).all():
        raise CodingError(f"y holds {_some(found)}: {_CODING}. Recode it: {_RECODING}.")
    return labels.astype(int)


def read_both_labels(y: Any, n: int) -> np.ndarray:
    """Read labels for a figure that needs good and defective images.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, 1)
    n : int
        Number of images.

    Returns
    -------
    ndarray of shape (n,), int
        +1 good, -1 defective, both present.

    Raises
    ------
    ValueError
        As for :func:`read_labels`, and if one of the two is missing.
    """
    labels = read_labels(y, n)
    if len(np.unique(labels)) < 2:
        only = "no labels" if n == 0 else f"{labels[0]:+d} only"
        raise OneClassError(
            f"y holds {only}: both good (+1) and defective (-1) images are needed. In a "
            "cross-validation use StratifiedKFold or skad.model_selection.OneClassKFold, whose test "
            "folds hold both."
        )
    return labels


def _read(y: Any, n: int) -> np.ndarray:
    """Read y as (n,) float64; anything but numbers is an error."""
    values = _column(y)
    if len(values) != n:
        raise ValueError(f"y has {len(values)} labels for {n} images: one label per image.")
    if values.dtype.kind in "iuf":
        numbers = values.astype(np.float64)
    else:
        numbers = np.array([_number(value, i) for i, value in enumerate(values)], dtype=np.float64)
    if not np.isfinite(numbers).all():
        i = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ValueError(f"y[{i}] is {numbers[i]}: {_CODING}.")
    return numbers


def _column(y: Any) -> np.ndarray:
    """One-dimensional view of a list, array, Series, or a table of one column."""
    if hasattr(y, "detach"):
        y = y.tolist()  # of a tensor, of whatever type and on whatever device
    if isinstance(y, list | tuple):
        # As they are: NumPy would turn [True, -1] into numbers and [1, "a"] into texts.
        values = np.fromiter(y, dtype=object, count=len(y))
    elif np.ma.is_masked(y):
        values = y.astype(object).filled(None)
    else:
        values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(
            f"y must be one label per image, of shape (n,); its shape is {values.shape}."
        )
    return values


def _number(value: Any, i: int) -> float:
    if isinstance(value, list | tuple | np.ndarray) and np.size(value) == 1:
        value = None if np.ma.is_masked(value) else np.asarray(value, dtype=object).item()
    if isinstance(value, Real | Decimal) and not isinstance(value, bool | np.bool_):
        with suppress(ArithmeticError, TypeError, ValueError):  # larger than any float; a duration
            return float(value)
    raise ValueError(
        f"y[{i}] is {str(value)[:40]!r} ({type(value).__name__}): {_CODING}. Recode it: {_RECODING}."
    )


def _some(found: np.ndarray) -> str:
    """Up to five of the values; 0.9999999 is not shown as 1."""
    texts = [f"{x:g}" if float(f"{x:g}") == x else repr(float(x)) for x in found[:_SHOWN]]
    shown = f"[{', '.join(texts)}]"
    return shown if len(found) <= _SHOWN else f"{shown} and {len(found) - _SHOWN} other values"
