"""The vectors a detector remembers, together with their search."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skad._bank._distances import blocks
from skad._bank.bounds import HalfPrecisionBounds, ProposalSearch, distances_from_above
from skad._bank.neighbourhoods import Neighbourhoods
from skad._bank.scores import reweight
from skad._bank.search import (
    ExactSearch,
    FaissSearch,
    Found,
    Products,
    check_k,
    distances_on_device,
    distances_to,
    joined,
    measured,
    queries_at_once,
)
from skad._system.forks import ObjectLock
from skad._torch.devices import has_fast_halves

Built = TypeVar("Built")

# Queries that are weighted together.
_ROWS = 1024
# Coarse bounds come from every so many vectors of a bank that is large enough.
_EVERY = 8
_LARGE = 128 * _EVERY


class MemoryBank:
    """Vectors of good patches, and the search for the nearest of them.

    What a search needs is prepared at first use, once a device, and never pickled: a pickle
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
        if self.vectors.ndim != 2 or len(self.vectors) == 0:
            raise ValueError(f"expected vectors of shape (M, d), got {self.vectors.shape}")
        if self.sources.shape != (len(self.vectors),):
            raise ValueError(
                f"expected one source for each of the {len(self.vectors)} vectors, "
                f"got shape {self.sources.shape}"
            )
        if not np.isfinite(self.vectors).all():
            raise ValueError("the vectors hold NaN or infinite values")
        self._forget()

    def __len__(self) -> int:
        return len(self.vectors)

    def __getstate__(self) -> dict[str, Any]:
        return {"vectors": self.vectors, "sources": self.sources, "index": self.index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def search(
        self,
        queries: ArrayLike | torch.Tensor,
        k: int,
        *,
        exclude_source: int | NDArray[np.int64] | None = None,
        rows_per_block: int | None = None,
        products: Products | None = None,
    ) -> Found:
        """Nearest vectors of every query, on the device of the queries.

        Queries are searched in blocks of one image where the caller names them. Every block goes through
        the same arithmetic in the same shapes, so that on the CPU its result is bitwise independent of
        the images beside it.

        Parameters
        ----------
        queries : tensor or array of shape (q, d) or (n_images, patches, d)
            Taken as float32.
        k : int
            Neighbours, 1 to the number of vectors searched.
        exclude_source : int or ndarray of shape (q,), optional
            Leave out the vectors of this image, or for every query those of its own. Such a search is
            always exact.
        rows_per_block : int, optional
            Rows of one image in queries of shape (q, d). Three-dimensional queries tell it
            themselves.
        products : Products, optional
            The same queries, of one image in shape (q, d), for products that cost less. An index
            of faiss does without.

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
        asked = self._as_queries(queries)
        flat = asked.reshape(-1, asked.shape[-1])
        size = rows_per_block or queries_at_once(flat.device, len(self))
        if asked.ndim == 3:
            size = asked.shape[1]
        elif products is not None:
            size = len(flat)
        check_k(k, self._n_left(exclude_source))
        exact = self._exact(flat.device)
        by_faiss = self.index != "auto" and exclude_source is None
        found = []
        for some in blocks(len(flat), max(1, size)):
            rows = flat[some]
            if by_faiss:
                proposed = self._by_faiss(exact, rows, k)
            else:
                mask = self._mask(exclude_source, flat.device, some)
                proposed = exact.candidates(products or rows, k, mask)
            found.append(measured(rows, exact.vectors, proposed))
        distances, ids = joined(found, k)
        shape = (*asked.shape[:-1], k)
        return distances.reshape(shape), ids.reshape(shape)

    def offers_bounds(self, device: torch.device) -> bool:
        """Whether `bounds` says something of `search`, which then is exact, and costs less."""
        return self.index == "auto" and ProposalSearch.pays(self._exact(device).vectors)

    def bounds(
        self,
        queries: torch.Tensor,
        k: int,
        *,
        exclude_source: int | None = None,
        coarse: bool = False,
    ) -> NDArray[np.float64]:
        """Distances that bound those of `search` from above, at a small part of its cost.

        Only where `offers_bounds` says so.

        Parameters
        ----------
        queries : tensor of shape (q, d), float32
            Patches of one image.
        k, exclude_source
            As for `search`.
        coarse : bool, default=False
            Wider bounds, from an eighth of a large bank.

        Returns
        -------
        ndarray of shape (q, k), float64
            Distances to k different vectors of the bank, ascending, so that column j is at least the
            distance to the (j + 1)-th nearest.
        """
        self._check_width(queries)
        exact = self._exact(queries.device)
        check_k(k, self._n_left(exclude_source))
        mask = self._mask(exclude_source, queries.device)
        proposals = self._once(("proposals", str(queries.device)), lambda: ProposalSearch(exact))
        every = _EVERY if coarse and self._can_thin(k, mask) else 1
        ids = proposals.candidates(queries, k, mask, every)
        return distances_from_above(queries, exact.vectors, ids)

    def offers_bounds_together(self, device: torch.device) -> bool:
        """Whether `bounds_together` says something of `search`, which then is exact, and costs less."""
        return self.index == "auto" and has_fast_halves(device)

    def bounds_together(self, queries: torch.Tensor, k: int) -> torch.Tensor:
        """Bound the distances of `search` from above for many images, without waiting for the device.

        Only where `offers_bounds_together` says so.

        Parameters
        ----------
        queries : tensor of shape (n_images, patches, d), float32
        k : int

        Returns
        -------
        tensor of shape (n_images, patches, k), float32, on the device of the queries
            Column j is at least the distance to the (j + 1)-th nearest.
        """
        self._check_width(queries)
        device, exact = str(queries.device), self._exact(queries.device)
        check_k(k, len(self))
        halves = self._once(("halves", device), lambda: HalfPrecisionBounds(exact))
        return halves.distances(queries.flatten(0, 1), k).unflatten(0, queries.shape[:2])

    def distances_together(self, queries: torch.Tensor, k: int) -> torch.Tensor:
        """Measure the distances of `search` for many images, without waiting for the device.

        Arguments and shape as for `bounds_together`; in no promised order. The search is exact, whatever
        `index` says.
        """
        exact, flat = self._exact(queries.device), queries.flatten(0, 1)
        check_k(k, len(self))
        found = distances_on_device(flat, exact.vectors, exact.candidates(flat, k))
        return found.unflatten(0, queries.shape[:2])

    def _can_thin(self, k: int, mask: torch.Tensor | None) -> bool:
        if len(self) < _LARGE:
            return False
        return mask is None or int((~mask[::_EVERY]).sum()) >= k

    def reweight(
        self,
        queries: ArrayLike | torch.Tensor,
        distances: ArrayLike,
        ids: ArrayLike,
        b: int,
        *,
        exclude_source: int | NDArray[np.int64] | None = None,
    ) -> NDArray[np.float64]:
        """Weights of PatchCore's Eq. 7 for queries whose nearest vectors are known.

        Parameters
        ----------
        queries : tensor or array of shape (..., d)
        distances, ids : array-like of shape (..., k)
            From `search`; only the nearest (column 0) is used.
        b : int
            Bank vectors around the nearest one, itself included. At most all are used.
        exclude_source : int or ndarray of shape (...), optional
            Leave the vectors of this image out of the neighbourhood, as `search` did.

        Returns
        -------
        ndarray of shape (...), float64
            In ``[1 - 1/b, 1)``; multiply the distance by it.

        Raises
        ------
        ValueError
            If `b` is below 2, or fewer than two vectors are there.
        """
        n_left = self._n_left(exclude_source)
        if min(b, n_left) < 2:
            raise ValueError(
                f"re-weighting needs b >= 2 neighbours and as many vectors, got b={b} and "
                f"{n_left} vectors: every weight would be zero"
            )
        asked = torch.as_tensor(queries, dtype=torch.float32).detach()
        flat = asked.reshape(-1, asked.shape[-1])
        nearest = np.asarray(distances, dtype=np.float64)[..., 0]
        matches = np.asarray(ids, dtype=np.int64)[..., 0].ravel()
        exact, b = self._exact(flat.device), min(b, n_left)
        key = ("neighbourhoods", b, str(flat.device))
        neighbourhoods = self._once(key, lambda: Neighbourhoods(exact, b))
        around = np.empty((len(flat), b), dtype=np.int64)
        for some in blocks(len(flat), _ROWS):
            mask = self._mask(exclude_source, torch.device("cpu"), some)
            around[some] = neighbourhoods.of(matches[some], None if mask is None else mask.numpy())
        ids_around = torch.from_numpy(around).to(flat.device)
        to_neighbours = distances_to(flat, exact.vectors, ids_around)
        return reweight(nearest, to_neighbours.reshape(*nearest.shape, -1))

    def _by_faiss(self, exact: ExactSearch, rows: torch.Tensor, k: int) -> torch.Tensor:
        index = self._once(("faiss",), lambda: FaissSearch(self.vectors, self.index))
        ids = torch.from_numpy(index.candidates(np.ascontiguousarray(rows.cpu()), k))
        ids = ids.to(rows.device)
        # An inverted list may hold fewer than k vectors: such queries are searched exactly.
        short = (ids < 0).any(dim=1)
        if bool(short.any()):
            ids[short] = exact.candidates(rows[short], k)
        return ids

    def _exact(self, device: torch.device) -> ExactSearch:
        key = ("exact", str(device))
        return self._once(key, lambda: ExactSearch(_as_tensor(self.vectors, device)))

    def _once(self, key: tuple[Any, ...], build: Callable[[], Built]) -> Built:
        """Return what is cached under `key`; the first thread to ask builds it."""
        with self._lock:
            if key not in self._cache:
                self._cache[key] = build()
            return self._cache[key]

    def _forget(self) -> None:
        self._cache: dict[tuple[Any, ...], Any] = {}
        self._lock = ObjectLock()

    def _mask(
        self,
        exclude_source: int | NDArray[np.int64] | None,
        device: torch.device,
        some: slice = slice(None),
    ) -> torch.Tensor | None:
        """Vectors to leave out: (M,) for all queries, or (n, M) for `some` of them."""
        if exclude_source is None:
            return None
        sources = self._once(("sources", str(device)), lambda: _as_tensor(self.sources, device))
        if np.ndim(exclude_source) == 0:
            return sources == int(exclude_source)  # type: ignore[arg-type]
        return sources == torch.from_numpy(np.reshape(exclude_source, (-1, 1))[some]).to(device)

    def _n_left(self, exclude_source: int | NDArray[np.int64] | None) -> int:
        """Vectors that are left to search, for the query that has fewest."""
        if exclude_source is None:
            return len(self)
        own = [np.count_nonzero(self.sources == source) for source in np.unique(exclude_source)]
        return len(self) - max(own, default=0)

    def _as_queries(self, queries: ArrayLike | torch.Tensor) -> torch.Tensor:
        asked = torch.as_tensor(queries, dtype=torch.float32).detach()
        self._check_width(asked)
        return asked

    def _check_width(self, queries: torch.Tensor) -> None:
        if queries.ndim not in (2, 3) or queries.shape[-1] != self.vectors.shape[1]:
            raise ValueError(
                f"expected queries of shape (q, {self.vectors.shape[1]}) or (n_images, patches, "
                f"{self.vectors.shape[1]}), got {tuple(queries.shape)}"
            )


def _as_tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    # A worker process may see the bank through a read-only memory map, which torch warns about; only
    # such a one is copied.
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)
