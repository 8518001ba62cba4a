"""PatchCore and ReConPatch as one network."""

from __future__ import annotations

from typing import Any

from torch import nn

from skad._export.banks import BankDistances, BankGrids, PatchEmbedding
from skad._runtime.content import Rounding


def bank_grids(detector: Any) -> nn.Module:
    """Return what scores patches by their distances to the bank.

    Parameters
    ----------
    detector : PatchCoreDetector or ReConPatchDetector
        A prediction's snapshot on the CPU.
    """
    embedding = PatchEmbedding(
        detector._network, detector._matrices(), getattr(detector, "components_", None)
    )
    return BankGrids(embedding, BankDistances(detector.bank_, detector._scorer().rule))


def bank_rounding(detector: Any) -> Rounding:
    """Say how far a score may move where a processor rounds otherwise."""
    error = detector._rounding_of(0.0)
    return Rounding("constant" if detector.distance == "squared" else "distance", error)
