"""Factory strings of faiss: what would end the process, or search nothing, is refused untried.

faiss checks little, and where it checks inside of its threads the process ends: no error can be caught.
The rules below come from trying strings out in processes of their own, on banks of every size.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

_UNSAFE = (
    (r"NSG|NNDescent", "its graphs end the process on small or repetitive banks: use HNSW32"),
    (r"HNSW1(?!\d)", "a graph needs two links a vector at least, such as HNSW32"),
    (r"(?<!\d)0+(?!\d)", "numbers in it must be positive"),
    (
        r"SQ(?!(?:4|6|8|fp16|bf16)(?!\w))",
        "of the SQ codes there are SQ4, SQ6, SQ8, SQfp16 and SQbf16",
    ),
    (r"IDMap", "the bank numbers its vectors itself: leave IDMap out"),
    (r"Residual", "it cannot search: use IVF"),
    (r"ZnLattice", "it writes over memory that is not its own: use SQ8"),
)
# Search parameters below which nothing, or next to nothing, is searched; those of a quantizer are named
# alike. Others must not be negative.
_LEAST = {"nprobe": 1, "efSearch": 1, "efConstruction": 1, "k_factor": 1, "k_factor_rf": 1}
_FRACTIONS = frozenset({"k_factor", "k_factor_rf"})
_MOST = 2**31 - 1
# Centroids that OPQ learns whatever follows it.
_OPQ = 256


def check_factory(index: str) -> None:
    """Refuse a factory string that faiss would take and should not.

    Parameters
    ----------
    index : str
        Factory string; search parameters follow a semicolon.

    Raises
    ------
    ValueError
        What faiss itself refuses is left to it.

    Examples
    --------
    >>> check_factory("IVF64,Flat;nprobe=8")
    >>> check_factory("IVF64,Flat;nprobe=0")
    Traceback (most recent call last):
        ...
    ValueError: index='IVF64,Flat;nprobe=0': nprobe must be a whole number of 1 at least.
    """
    factory, _, parameters = index.partition(";")
    for pattern, reason in _UNSAFE:
        if re.search(pattern, factory):
            raise ValueError(f"index={index!r}: {reason}.")
    for setting in filter(None, parameters.split(",")):
        name, _, value = setting.partition("=")
        known = name.strip().removeprefix("quantizer_")
        least, number = _LEAST.get(known, 0), _number(value)
        whole = number.is_integer() or known in _FRACTIONS
        if not (least <= number <= _MOST and whole):
            kind = "number" if known in _FRACTIONS else "whole number"
            raise ValueError(f"index={index!r}: {name} must be a {kind} of {least} at least.")


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return -1.0


def fewest_vectors(faiss: ModuleType, index: Any) -> int:
    """Count the vectors that an index needs to be trained.

    Parameters
    ----------
    faiss : module
    index : faiss.Index

    Returns
    -------
    int
    """
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        chain = [
            faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())
        ]
        return max([fewest_vectors(faiss, index.index), *(_fewest(faiss, step) for step in chain)])
    needed = [1]
    if hasattr(index, "pq"):
        needed.append(index.pq.ksub)
    if hasattr(index, "nlist") and not isinstance(
        faiss.downcast_index(index.quantizer), faiss.MultiIndexQuantizer
    ):
        needed.append(index.nlist)
    parts = ("storage", "base_index", "refine_index", "quantizer")
    inner = [getattr(index, part) for part in parts if getattr(index, part, None) is not None]
    return max(needed + [fewest_vectors(faiss, part) for part in inner])


def _fewest(faiss: ModuleType, step: Any) -> int:
    if isinstance(step, faiss.OPQMatrix):
        return _OPQ
    return step.d_out if isinstance(step, faiss.PCAMatrix) else 1
