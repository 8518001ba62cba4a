"""The vectors a detector remembers, together with their search."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skad._bank._distances import blocks
from skad._bank.neighbourhoods import Neighbourhoods
from skad._bank.search import (
    ExactSearch,
    FaissSearch,
    Found,
    check_k,
    distances_to,
    measured,
    queries_at_once,
)
from skad._common.forks import ObjectLock

Built = TypeVar("Built")

# Queries that are weighted together.
_QUERIES = 1024

# The number of an image whose vectors are left out of a search; or one per query.
LeaveOut = int | NDArray[np.int64] | None


class Prepared:
    """Objects by key, each built by the first thread that asks for it.

    Examples
    --------
    >>> prepared = Prepared()
    >>> prepared.once("a", lambda: [1]) is prepared.once("a", lambda: [2])
    True
    """

    def __init__(self) -> None:
        self._built: dict[Any, Any] = {}
        self._lock = ObjectLock()

    def once(self, key: Any, build: Callable[[], Built]) -> Built:
        """Return what was built under `key`, which is built now if it is not there.

        Parameters
        ----------
        key : hashable
        build : callable
            Without arguments; it must not ask for another key.

        Returns
        -------
        object
        """
        with self._lock:
            if key not in self._built:
                self._built[key] = build()
            return self._built[key]


class MemoryBank:
    """Vectors of good patches, and the search for the nearest of them.

    What a search needs is prepared at first use, once per device, and never pickled: a pickle
    holds two numpy arrays and a string. One bank may be used from several threads.

    Parameters
    ----------
    vectors : array-like of shape (M, d)
        Kept as float32, C-contiguous.
    sources : array-like of shape (M,), int
        Number of the image each vector comes from.
    index : str, default="auto"
        "auto" searches exactly in torch. Anything else is a factory string of faiss ("Flat",
        "IVF64,Flat", "HNSW32", "IVF64,Flat;nprobe=8"), searched on the CPU.

    Attributes
    ----------
    vectors : ndarray of shape (M, d), float32
    sources : ndarray of shape (M,), int64
    index : str
    prepared : Prepared
        What searches have built.

    Raises
    ------
    ValueError
        If shapes do not fit, there is no vector, or one holds NaN or infinite values.

    Examples
    --------
    >>> bank = MemoryBank([[0.0, 0.0], [3.0, 4.0]], sources=[0, 1])
    >>> distances, ids = bank.search([[0.0, 1.0]], k=2)
    >>> ids.tolist()
    [[0, 1]]
    """

    def __init__(self, vectors: ArrayLike, sources: ArrayLike, index: str = "auto") -> None:
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self.sources = np.ascontiguousarray(sources, dtype=np.int64)
        self.index = index
        self.prepared = Prepared()
        if self.vectors.ndim != 2 or len(self.vectors) == 0:
            raise ValueError(f"expected vectors of shape (M, d), got {self.vectors.shape}")
        if self.sources.shape != (len(self.vectors),):
            raise ValueError(
                f"expected one source for each of the {len(self.vectors)} vectors, "
                f"got shape {self.sources.shape}"
            )
        if not np.isfinite(self.vectors).all():
            raise ValueError("the vectors hold NaN or infinite values")

    def __len__(self) -> int:
        return len(self.vectors)

    def __getstate__(self) -> dict[str, Any]:
        return {"vectors": self.vectors, "sources": self.sources, "index": self.index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.prepared = Prepared()

    def search(
        self, queries: ArrayLike | torch.Tensor, k: int, *, exclude_source: LeaveOut = None
    ) -> Found:
        """Nearest vectors of every query, on the device of the queries.

        Every block of queries goes through the same arithmetic in the same shapes; a block is one image
        where the shape names images. So on the CPU the result of an image is bitwise independent of the
        images beside it.

        Parameters
        ----------
        queries : tensor or array of shape (q, d) or (n_images, patches, d)
            Taken as float32.
        k : int
            Neighbours, 1 to the number of vectors searched.
        exclude_source : int or ndarray of shape (q,), optional
            Leave out the vectors of this image, or for every query those of its own. Such a search is
            always exact.

        Returns
        -------
        distances : ndarray of shape (q, k) or (n_images, patches, k), float64
            Euclidean (not squared), ascending.
        ids : ndarray of the same shape, int64
            Row numbers in `vectors`.

        Raises
        ------
        ValueError
            If fewer than `k` vectors are left to search, or shapes do not fit.
        ImportError
            If `index` needs faiss and faiss is not installed.
        """
        asked = self.as_queries(queries)
        check_k(k, self.n_left(exclude_source))
        flat = asked.reshape(-1, asked.shape[-1])
        n_vectors, exact = len(self.vectors), self.exact(flat.device)
        size = asked.shape[1] if asked.ndim == 3 else queries_at_once(flat.device, n_vectors)
        distances = np.empty((len(flat), k))
        ids = np.empty((len(flat), k), dtype=np.int64)
        for some in blocks(len(flat), max(1, size)):
            if self.index != "auto" and exclude_source is None:
                proposed = self._proposed_by_faiss(exact, flat[some], k)
            else:
                mask = self.left_out(exclude_source, flat.device, some)
                proposed = exact.candidates(flat[some], k, mask)
            distances[some], ids[some] = measured(flat[some], exact.vectors, proposed)
        shape = (*asked.shape[:-1], k)
        return distances.reshape(shape), ids.reshape(shape)

    def _proposed_by_faiss(self, exact: ExactSearch, queries: torch.Tensor, k: int) -> torch.Tensor:
        index = self.prepared.once("faiss", lambda: FaissSearch(self.vectors, self.index))
        ids = torch.from_numpy(index.candidates(np.ascontiguousarray(queries.cpu()), k))
        ids = ids.to(queries.device)
        # An inverted list may hold fewer than k vectors: such queries are searched exactly.
        short = (ids < 0).any(dim=1)
        if bool(short.any()):
            ids[short] = exact.candidates(queries[short], k)
        return ids

    def distances_around(
        self,
        queries: ArrayLike | torch.Tensor,
        ids: ArrayLike,
        b: int,
        *,
        exclude_source: LeaveOut = None,
    ) -> NDArray[np.float64]:
        """Distances of queries to the neighbourhoods of their nearest vectors: ``N_b(m*)`` of Eq. 7.

        Parameters
        ----------
        queries : tensor or array of shape (..., d)
        ids : array-like of shape (..., k)
            From `search`; only the nearest (column 0) is used.
        b : int
            Bank vectors around the nearest one, itself included. At most all are used.
        exclude_source : int or ndarray of shape (...), optional
            Leave the vectors of this image out of the neighbourhood, as `search` did.

        Returns
        -------
        ndarray of shape (..., b), float64
            The nearest vector's first.

        Raises
        ------
        ValueError
            If `b` is below 2, or fewer than two vectors are there.
        """
        n_left = self.n_left(exclude_source)
        if min(b, n_left) < 2:
            raise ValueError(
                f"re-weighting needs b >= 2 neighbours and as many vectors, got b={b} and "
                f"{n_left} vectors: every weight would be zero"
            )
        asked = torch.as_tensor(queries, dtype=torch.float32).detach()
        flat = asked.reshape(-1, asked.shape[-1])
        matches = np.asarray(ids, dtype=np.int64)[..., 0].ravel()
        exact, b = self.exact(flat.device), min(b, n_left)
        key = ("neighbourhoods", b, str(flat.device))
        neighbourhoods = self.prepared.once(key, lambda: Neighbourhoods(exact, b))
        around = np.empty((len(flat), b), dtype=np.int64)
        for some in blocks(len(flat), _QUERIES):
            mask = self.left_out(exclude_source, torch.device("cpu"), some)
            around[some] = neighbourhoods.of(matches[some], None if mask is None else mask.numpy())
        found = distances_to(flat, exact.vectors, torch.from_numpy(around).to(flat.device))
        return found.cpu().double().numpy().reshape(*asked.shape[:-1], b)

    # ------------------------------------------------- for searches of other kinds (`bounds`)

    def exact(self, device: torch.device) -> ExactSearch:
        """Return the exact search on a device."""
        key = ("exact", str(device))
        return self.prepared.once(key, lambda: ExactSearch(_as_tensor(self.vectors, device)))

    def left_out(
        self, exclude_source: LeaveOut, device: torch.device, some: slice = slice(None)
    ) -> torch.Tensor | None:
        """Mask of the excluded vectors: (M,) bool for all queries, or (n, M) for `some` of them."""
        if exclude_source is None:
            return None
        key = ("sources", str(device))
        sources = self.prepared.once(key, lambda: _as_tensor(self.sources, device))
        if np.ndim(exclude_source) == 0:
            return sources == int(exclude_source)
        return sources == torch.from_numpy(np.reshape(exclude_source, (-1, 1))[some]).to(device)

    def n_left(self, exclude_source: LeaveOut) -> int:
        """Vectors that are left to search, for the query that has fewest."""
        if exclude_source is None:
            return len(self.vectors)
        own = [np.count_nonzero(self.sources == source) for source in np.unique(exclude_source)]
        return len(self.vectors) - max(own, default=0)

    def as_queries(self, queries: ArrayLike | torch.Tensor) -> torch.Tensor:
        """Take queries as float32; refuse them if they do not have the length of the vectors."""
        asked = torch.as_tensor(queries, dtype=torch.float32).detach()
        if asked.ndim not in (2, 3) or asked.shape[-1] != self.vectors.shape[1]:
            raise ValueError(
                f"expected queries of shape (q, {self.vectors.shape[1]}) or (n_images, patches, "
                f"{self.vectors.shape[1]}), got {tuple(asked.shape)}"
            )
        return asked


def _as_tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    # A worker process may see the bank through a read-only memory map, which torch warns about; only
    # such a one is copied.
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)
