"""Squared distances as one matrix product, and what keeps them accurate.

``|x - c|^2 = |x|^2 - 2 x.c + |c|^2`` loses digits where the norms are large beside the distances.
Features after a ReLU all point the same way, so that subtracting a common centre first wins most
of these digits back.
"""

import math
from collections.abc import Iterator

import torch


def full_precision(tensor: torch.Tensor) -> torch.autocast:
    """Context in which matrix products on the tensor's device keep the tensor's own precision."""
    return torch.autocast(tensor.device.type, enabled=False)


def rounded_centre(X: torch.Tensor) -> torch.Tensor:
    """Mean of the rows, rounded to a coarse power of two.

    Rounding costs no accuracy worth having (any point amid the data will do), and data on a
    lattice, integers for example, stay on it: equal distances stay exactly equal.

    Parameters
    ----------
    X : tensor of shape (N, d), floating
        At least one row.

    Returns
    -------
    tensor of shape (d,), of the type and on the device of `X`

    Raises
    ------
    ValueError
        If `X` holds NaN or infinite values.
    """
    lowest, highest = X.amin(0), X.amax(0)
    spread = float((highest - lowest).amax()) if X.shape[1] else 0.0
    if not math.isfinite(spread):
        raise ValueError("the vectors hold NaN or infinite values")
    if spread == 0.0:
        return lowest
    step = 2.0 ** (math.floor(math.log2(spread)) - 6)
    return (X.mean(0) / step).round_().mul_(step)


def squared_norms(X: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean norm of every row, without a second copy of `X`."""
    norms = X.new_empty(X.shape[0])
    for block in blocks(X.shape[0], rows_per_product(X.device, 2048)):
        # Not a norm squared: the square root would push lattice data off their lattice.
        torch.sum(X[block] * X[block], dim=1, out=norms[block])
    return norms


def blocks(n_rows: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows."""
    for first in range(0, n_rows, size):
        yield slice(first, min(first + size, n_rows))


def rows_per_product(device: torch.device, on_cpu: int) -> int:
    """Rows of one matrix product: few enough for a CPU's cache, many enough to fill a GPU."""
    return on_cpu if device.type == "cpu" else 32 * on_cpu
