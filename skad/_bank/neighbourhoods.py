"""The bank vectors around each bank vector, found as they are asked for."""

import numpy as np
import torch
from numpy.typing import NDArray

from skad._bank._distances import blocks
from skad._bank.search import ExactSearch, measured
from skad._common.forks import ObjectLock

# Vectors whose neighbours are searched for together; bounds the memory.
_ROWS = 1024


class Neighbourhoods:
    """Neighbours of bank vectors in the bank, each vector first among its own.

    Twice as many as needed are proposed by matrix products and measured exactly, so that the neighbours
    of a vector do not depend on how a product of other vectors beside it was rounded. What has been
    found is kept. May be used from several threads.

    Parameters
    ----------
    exact : ExactSearch
        The bank.
    b : int
        Neighbours, the vector itself included; 1 to M.

    Examples
    --------
    >>> bank = torch.tensor([[0.0], [1.0], [3.0]])
    >>> Neighbourhoods(ExactSearch(bank), b=2).of(np.array([2, 1, 0]))
    array([[2, 1],
           [1, 0],
           [0, 1]])
    """

    def __init__(self, exact: ExactSearch, b: int) -> None:
        n_vectors = len(exact.vectors)
        self._exact, self._b = exact, b
        # Zeros take no memory before something else is written.
        self._table = np.zeros((n_vectors, min(2 * b, n_vectors)), dtype=np.int64)
        self._known = np.zeros(n_vectors, dtype=bool)
        self._lock = ObjectLock()

    def of(
        self, vectors: NDArray[np.int64], leave_out: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Find the neighbours of some vectors.

        Parameters
        ----------
        vectors : ndarray of shape (n,), int64
            Their numbers in the bank.
        leave_out : ndarray of shape (M,) or (n, M), bool, optional
            Vectors that are not returned, for all of `vectors` or for each: never the vector itself, and
            so few that `b` are left.

        Returns
        -------
        ndarray of shape (n, b), int64
            Numbers in the bank: the vector itself, then its neighbours, the nearest first.
        """
        wide = self._wide(vectors)
        if leave_out is None:
            return wide[:, : self._b]
        # The same table usually serves here too.
        leave_out = np.broadcast_to(leave_out, (len(vectors), len(self._table)))
        unwanted = np.take_along_axis(leave_out, wide, axis=1)
        order = np.argsort(unwanted, axis=1, kind="stable")[:, : self._b]
        around = np.take_along_axis(wide, order, axis=1)
        few = np.flatnonzero(unwanted.sum(axis=1) > wide.shape[1] - self._b)
        if len(few):
            around[few] = self._search(vectors[few], self._b, leave_out[few])
        return around

    def _wide(self, vectors: NDArray[np.int64]) -> NDArray[np.int64]:
        with self._lock:
            missing = np.unique(vectors[~self._known[vectors]])
            for some in blocks(len(missing), _ROWS):
                new = missing[some]
                self._table[new] = self._search(new, self._table.shape[1])
                self._known[new] = True
            return self._table[vectors]

    def _search(
        self, vectors: NDArray[np.int64], k: int, leave_out: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        exact = self._exact
        queries = exact.vectors[torch.from_numpy(vectors).to(exact.vectors.device)]
        excluded = None if leave_out is None else torch.from_numpy(leave_out).to(queries.device)
        _, ids = measured(queries, exact.vectors, exact.candidates(queries, k, excluded))
        return _itself_first(ids, vectors)


def _itself_first(ids: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Put every vector at the head of its own neighbours; the others keep their order.

    A vector can be missing where duplicates fill its list: the farthest then makes room.
    """
    is_own = ids == own[:, None]
    missing = ~is_own.any(axis=1)
    ids[missing, -1] = own[missing]
    is_own[missing, -1] = True
    order = np.argsort(~is_own, axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1)
