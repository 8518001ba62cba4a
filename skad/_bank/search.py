"""Finding the nearest vectors: exactly in torch, or by any index of faiss.

Both ways only propose numbers of vectors. The distances are then measured again from the differences of
the vectors themselves, so that they carry neither the cancellation of a matrix product nor
faiss's squares, and a vector's distance to itself is exactly zero.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import embedding

from skad._bank._distances import (
    blocks,
    full_precision,
    rounded_centre,
    rows_per_product,
    squared_norms,
)
from skad._bank.factory import check_factory, check_transforms, fewest_vectors, quoted
from skad._common.forks import LOADING

Found = tuple[NDArray[np.float64], NDArray[np.int64]]

# Bank vectors of one matrix product: with one image's patches the result stays in cache.
_COLUMNS = 2048
# Queries of one product where nothing else decides. A GPU takes more of them while the bank is small, up
# to so many distances.
_QUERIES, _ON_GPU = 1024, 1 << 26
# Numbers held at a time while distances are measured again; fits a CPU core's cache.
_DIFFERENCES = 1 << 16


class ExactSearch:
    """Exact search over vectors on one device; centred vectors and norms are prepared once.

    Parameters
    ----------
    vectors : tensor of shape (M, d), float32
        Kept by reference; a centred copy is made.
    """

    def __init__(self, vectors: torch.Tensor) -> None:
        self.vectors = vectors
        self.centre = rounded_centre(vectors)
        self.points = vectors - self.centre
        self.norms = squared_norms(self.points)

    def candidates(
        self, queries: torch.Tensor, k: int, exclude: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Numbers of the k nearest vectors, shape (q, k), int64, in no promised order.

        Parameters
        ----------
        queries : tensor of shape (q, d), float32, on the device of the vectors
        k : int
            At most the number of vectors not excluded.
        exclude : tensor of shape (M,) or (q, M), bool, optional
            Vectors to exclude, for all queries or for each.
        """
        return nearest_rows(queries - self.centre, self.points, self.norms, k, exclude)


def nearest_rows(
    queries: torch.Tensor,
    points: torch.Tensor,
    norms: torch.Tensor,
    k: int,
    exclude: torch.Tensor | None = None,
) -> torch.Tensor:
    """Find the k points with the smallest ``|p|^2 - 2 q.p`` for every query, by matrix products.

    Parameters
    ----------
    queries : tensor of shape (q, d)
    points : tensor of shape (M, d)
    norms : tensor of shape (M,)
        Squared lengths of the points.
    k : int
    exclude : tensor of shape (M,) or (q, M), bool, optional
        Points that are not to be found, for all queries or for each.

    Returns
    -------
    tensor of shape (q, k), int64
        Row numbers, in no promised order.
    """

    def compared(some: slice) -> torch.Tensor:
        bias = norms[some]
        if exclude is not None:
            bias = bias.masked_fill(exclude[..., some], torch.inf)
        return torch.addmm(bias, queries, points[some].T, alpha=-2)

    return smallest_columns(compared, points, k)


def smallest_columns(
    compared: Callable[[slice], torch.Tensor], points: torch.Tensor, k: int
) -> torch.Tensor:
    """Find the k smallest of every row of a matrix that is computed block by block.

    Parameters
    ----------
    compared : callable
        Maps a slice of the points to ``|p|^2 - 2 q.p``, shape (q, length of the slice). The query's own
        norm is left out: it does not change the order.
    points : tensor of shape (M, d)
    k : int

    Returns
    -------
    tensor of shape (q, k), int64
        Column numbers, in no promised order.
    """
    best: list[torch.Tensor] = []
    columns: list[torch.Tensor] = []
    with torch.no_grad(), full_precision(points):
        for some in blocks(len(points), rows_per_product(points.device, _COLUMNS)):
            values = compared(some)
            lowest, found = _smallest(values, min(k, values.shape[1]))
            best.append(lowest)
            columns.append(found + some.start)
        if len(best) == 1:
            return columns[0]
        _, winners = _smallest(torch.cat(best, 1), k)
        return torch.cat(columns, 1).gather(1, winners)


class FaissSearch:
    """Search by an index of faiss on the CPU, trained and filled deterministically.

    Parameters
    ----------
    vectors : ndarray of shape (M, d), float32, C-contiguous
    index : str
        Factory string of faiss, such as "Flat", "IVF64,Flat" or "HNSW32". What follows a
        semicolon is set as search parameters: "IVF64,Flat;nprobe=8".

    Raises
    ------
    ImportError
        If faiss is not installed.
    ValueError
        If faiss refuses the string, or cannot train such an index on so few vectors.
    """

    def __init__(self, vectors: NDArray[np.float32], index: str) -> None:
        faiss = _import_faiss()
        self._factory = index
        self._index = _make_index(faiss, index, vectors.shape[1], len(vectors))
        # Both training and the building of graphs depend on the number of threads.
        n_threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            self._index.train(vectors)
            self._index.add(vectors)
        except (RuntimeError, MemoryError) as error:
            raise ValueError(
                f"faiss cannot build index={quoted(index)} from {len(vectors)} vectors of length "
                f"{vectors.shape[1]}; choose a simpler one, such as 'Flat'"
            ) from error
        finally:
            faiss.omp_set_num_threads(n_threads)

    def candidates(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Row numbers of the k vectors the index finds, shape (q, k); -1 where it finds fewer."""
        try:
            return self._index.search(queries, k)[1]
        except (RuntimeError, MemoryError) as error:
            raise ValueError(
                f"faiss cannot search index={quoted(self._factory)}; choose a simpler one, such as "
                "'Flat'"
            ) from error


def queries_at_once(device: torch.device, n_vectors: int) -> int:
    """How many queries are searched for together where nothing else decides.

    Parameters
    ----------
    device : torch.device
    n_vectors : int
        Size of the bank.

    Returns
    -------
    int
        At least 1,024; more on a GPU and for a small bank, up to 268 MB of distances.
    """
    return _QUERIES if device.type == "cpu" else max(_QUERIES, _ON_GPU // n_vectors)


def check_index(index: str, n_features: int | None = None, n_vectors: int | None = None) -> None:
    """Refuse an unusable `index` before any work is done.

    Parameters
    ----------
    index : str
        "auto" or a factory string of faiss; see `FaissSearch`.
    n_features : int, optional
        Length of the vectors, where known: some indexes need it to be a multiple.
    n_vectors : int, optional
        Their number, where known: some indexes are trained on many.

    Raises
    ------
    TypeError
        If `index` is not a string.
    ImportError
        If the index needs faiss and faiss is not installed.
    ValueError
        If faiss refuses the string, or would end the process; or for too few vectors.
    """
    if not isinstance(index, str):
        raise TypeError(f"index must be a string, got {type(index).__name__}")
    if index != "auto":
        # 960 is a multiple of every usual number of sub-quantisers.
        faiss = _import_faiss()
        made = _make_index(faiss, index, 960 if n_features is None else n_features, n_vectors)
        fewest = fewest_vectors(faiss, made)
        if n_vectors is not None and n_vectors < fewest:
            raise ValueError(
                f"index={quoted(index)} is trained on {fewest} vectors at least, and the bank holds "
                f"{n_vectors}: raise coreset_size, or choose a simpler one, such as 'Flat'."
            )


def check_k(k: int, n_vectors: int) -> None:
    """Refuse a number of neighbours that the vectors at hand cannot give."""
    if not 1 <= k <= n_vectors:
        raise ValueError(f"k must be between 1 and the {n_vectors} vectors searched, got {k}")


def measured(queries: torch.Tensor, vectors: torch.Tensor, ids: torch.Tensor) -> Found:
    """Distances to proposed vectors, measured from differences and sorted.

    Parameters
    ----------
    queries : tensor of shape (q, d), float32
    vectors : tensor of shape (M, d), float32
    ids : tensor of shape (q, k), int64
        All on one device.

    Returns
    -------
    distances, ids : ndarrays of shape (q, k), float64 and int64
        Ascending; the lower number first where distances are equal.
    """
    distances = distances_to(queries, vectors, ids).cpu().double().numpy()
    numbers = ids.cpu().numpy()
    if numbers.shape[1] > 1:
        order = np.lexsort((numbers, distances), axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
        numbers = np.take_along_axis(numbers, order, axis=1)
    return distances, numbers


def distances_to(queries: torch.Tensor, vectors: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Euclidean distance of query i to ``vectors[ids[i]]``, shape (q, k), on their device.

    In float64 on the CPU. Elsewhere in float32, since most GPUs are slow in float64 and some have none;
    differences keep full relative accuracy.
    """
    on_cpu = queries.device.type == "cpu"
    dtype = torch.float64 if on_cpu else torch.float32
    per_row = max(1, ids.shape[1] * queries.shape[1])
    step = rows_per_product(queries.device, max(1, _DIFFERENCES // per_row))
    out = torch.empty(ids.shape, dtype=dtype, device=queries.device)
    with torch.no_grad():
        for some in blocks(ids.shape[0], step):
            # Fetches vectors several times faster than indexing does.
            away = embedding(ids[some], vectors).to(dtype).sub_(queries[some, None])
            torch.sum(away.mul_(away), dim=2, out=out[some])
    return out.sqrt_()


def _smallest(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the k smallest of every row, and their columns; of equals the first, where k is 1."""
    if k == 1 and values.device.type == "cpu":
        # NumPy's argmin uses vector instructions; torch's takes ten times as long.
        columns = torch.from_numpy(values.numpy().argmin(axis=1))[:, None]
        return values.gather(1, columns), columns
    if k == 1:
        found = values.min(dim=1, keepdim=True)
        return found.values, found.indices
    return values.topk(k, dim=1, largest=False, sorted=False)


def _import_faiss() -> ModuleType:
    try:
        with LOADING:
            import faiss
    except ImportError as error:
        raise ImportError(
            'this index needs faiss: pip install "skad[cpu]", or use index="auto", '
            "which searches exactly without it"
        ) from error
    return faiss


def _make_index(faiss: ModuleType, index: str, n_features: int, n_vectors: int | None) -> Any:
    """Empty faiss index for Euclidean distances from a factory string."""
    check_factory(index, n_vectors)
    factory, _, parameters = index.partition(";")
    try:
        made = faiss.index_factory(n_features, factory, faiss.METRIC_L2)
        check_transforms(faiss, made, index)
        if parameters:
            faiss.ParameterSpace().set_index_parameters(made, parameters)
    except (RuntimeError, MemoryError) as error:
        raise ValueError(
            f"faiss does not accept index={quoted(index)} for vectors of length {n_features}; "
            "use 'auto', 'Flat' or another factory string of faiss, such as 'IVF64,Flat'"
        ) from error
    return made
