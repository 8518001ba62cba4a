"""Factory strings of faiss: what would end the process, or search nothing, is refused untried.

faiss checks little, and where it checks inside of its threads the process ends: no error can be caught.
The rules below come from trying strings out in processes of their own, on banks of every size.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

from skad._common.text import shortened

_UNSAFE = (
    (r"NSG|NNDescent", "its graphs end the process on small or repetitive banks: use HNSW32"),
    (r"HNSW1(?!\d)", "a graph needs at least two links per vector, such as HNSW32"),
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
_SMALLEST_SETTING = {
    "nprobe": 1,
    "efSearch": 1,
    "efConstruction": 1,
    "k_factor": 1,
    "k_factor_rf": 1,
}
_FRACTIONS = frozenset({"k_factor", "k_factor_rf"})
_LARGEST_SETTING = 2**31 - 1
# Room for so many vectors is made for every query; more than the bank holds finds nothing more, but up
# to so many cost little.
_ROOM = frozenset({"efSearch", "efConstruction", "k_factor", "k_factor_rf"})
_MUCH_ROOM = 1024
# Search parameters that pass over vectors without looking at their distance.
_BLIND = frozenset({"max_codes", "ht"})
_MOST_LINKS = 512
# Times the length of the vectors that a transform may give; more is zeros or repeats.
_WIDENING = 4
# Centroids that OPQ learns whatever follows it.
_OPQ = 256


def check_factory(index: str, n_vectors: int | None = None) -> None:
    """Refuse a factory string that faiss would take and should not.

    Parameters
    ----------
    index : str
        Factory string; search parameters follow a semicolon.
    n_vectors : int, optional
        Number of vectors in the bank, where known.

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
            raise ValueError(f"index={quoted(index)}: {reason}.")
    if any(int(links) > _MOST_LINKS for links in re.findall(r"HNSW(\d+)", factory)):
        raise ValueError(
            f"index={quoted(index)}: a graph has {_MOST_LINKS} links per vector at most, such as HNSW32."
        )
    for setting in filter(None, parameters.split(",")):
        name, _, value = setting.partition("=")
        known = name.strip().removeprefix("quantizer_")
        name = shortened(name, 60)
        least, number = _SMALLEST_SETTING.get(known, 0), _number(value)
        whole = number.is_integer() or known in _FRACTIONS
        if not (least <= number <= _LARGEST_SETTING and whole):
            kind = "number" if known in _FRACTIONS else "whole number"
            raise ValueError(f"index={quoted(index)}: {name} must be a {kind} of {least} at least.")
        if known in _BLIND and number > 0:
            raise ValueError(
                f"index={quoted(index)}: {name} passes over the nearest vectors: leave it out, "
                "and set nprobe."
            )
        if n_vectors is not None and known in _ROOM and number > max(n_vectors, _MUCH_ROOM):
            raise ValueError(
                f"index={quoted(index)}: {name} must be {max(n_vectors, _MUCH_ROOM)} at most for a "
                f"bank of {n_vectors} vectors."
            )


def quoted(index: str) -> str:
    """Quote a factory string in an error message, however long it is."""
    return shortened(repr(index))


def check_transforms(faiss: ModuleType, made: Any, index: str) -> None:
    """Refuse an index whose transforms make the vectors longer than they can, or should.

    Parameters
    ----------
    faiss : module
    made : faiss.Index
        As faiss has made it, untrained.
    index : str
        Its factory string, for the message.

    Raises
    ------
    ValueError
    """
    for step in _transforms(faiss, faiss.downcast_index(made)):
        # Only to turn and to pad vectors makes sense where the result is longer; OPQ writes beyond it.
        times = _WIDENING if isinstance(step, _widening(faiss)) else 1
        if step.d_out > times * step.d_in:
            raise ValueError(
                f"index={quoted(index)}: makes vectors of length {step.d_out} of those of length "
                f"{step.d_in}; {times * step.d_in} is the most."
            )


def _widening(faiss: ModuleType) -> tuple[type, ...]:
    return faiss.RemapDimensionsTransform, faiss.RandomRotationMatrix


def _transforms(faiss: ModuleType, index: Any) -> list[Any]:
    if not isinstance(index, faiss.IndexPreTransform):
        return []
    return [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]


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
        steps = [_fewest(faiss, step) for step in _transforms(faiss, index)]
        return max([fewest_vectors(faiss, index.index), *steps])
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
