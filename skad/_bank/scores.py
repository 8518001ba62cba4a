"""From distances to anomaly scores: the formulas of the papers, in float64.

Pure functions of arrays; the bank finds the neighbours.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp


def mean_of_nearest(distances: ArrayLike, squared: bool) -> NDArray[np.float64]:
    """Patch score: mean over the nearest bank vectors of the distance or of its square.

    Parameters
    ----------
    distances : array-like of shape (..., k)
        Euclidean distances to the k nearest bank vectors.
    squared : bool
        True averages squared distances, as PatchCore's published code does (faiss returns
        squares); False averages Euclidean distances, as its paper says.

    Returns
    -------
    ndarray of shape (...), float64

    References
    ----------
    Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, section 3.3.
    """
    values = np.asarray(distances, dtype=np.float64)
    return np.mean(values * values if squared else values, axis=-1)


def reweight(nearest: ArrayLike, to_neighbours: ArrayLike) -> NDArray[np.float64]:
    """Weights of PatchCore's Eq. 7, which is ReConPatch's Eq. 10.

    With ``m*`` the bank vector nearest to a patch ``q`` and ``N_b`` the b bank vectors nearest
    to ``m*`` (``m*`` among them), the weight is
    ``1 - exp(|q - m*|) / sum over m in N_b of exp(|q - m|)``. It lies in ``[1 - 1/b, 1)`` and is
    the larger the more isolated ``m*`` is.

    Parameters
    ----------
    nearest : array-like of shape (...)
        Euclidean distance of each patch to its nearest bank vector.
    to_neighbours : array-like of shape (..., b)
        Euclidean distances of each patch to ``N_b(m*)``.

    Returns
    -------
    ndarray of shape (...), float64

    Raises
    ------
    ValueError
        If b < 2: the weight would be zero whatever the distances.

    References
    ----------
    Roth et al., CVPR 2022, Eq. 7; Hyun et al., "ReConPatch", WACV 2024, Eq. 10.
    """
    neighbours = np.asarray(to_neighbours, dtype=np.float64)
    if neighbours.shape[-1] < 2:
        raise ValueError(
            f"re-weighting needs b >= 2 neighbours, got b={neighbours.shape[-1]}: "
            "with fewer every weight is zero"
        )
    # A difference of logarithms, since exp overflows at a distance of 710.
    total = logsumexp(neighbours, axis=-1)
    return -np.expm1(np.asarray(nearest, dtype=np.float64) - total)
