"""How many vectors a memory bank holds."""

from __future__ import annotations

from numbers import Integral

# With few images, a hundredth of the patches is too little: what is rare among good parts has no vector,
# and a bank without an image's own vectors is full of holes. See docs/thresholds.md.
_LEAST, _FRACTION = 5000, 0.01


def bank_size(n_patches: int, coreset_size: int | float | str) -> int:
    """Tell how many vectors a bank of so many patches holds.

    Parameters
    ----------
    n_patches : int
    coreset_size : int, float or "auto"
        A number of vectors; a fraction of the patches; or 5,000 vectors, 1 % of the patches where that
        is more, and all patches where there are fewer.

    Returns
    -------
    int
        At least 1. A number is given back as it is, though there may be fewer patches.

    Examples
    --------
    >>> [bank_size(n, "auto") for n in (800, 80_000, 800_000)]
    [800, 5000, 8000]
    """
    if isinstance(coreset_size, str):
        return min(n_patches, max(_LEAST, int(n_patches * _FRACTION)))
    if isinstance(coreset_size, Integral):
        return int(coreset_size)
    return max(1, int(n_patches * coreset_size))
