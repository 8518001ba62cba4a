"""Every kind of detector as one network, and what its scores are rounded to."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from skad._export.banks import BankDistances, BankGrids, PatchEmbedding
from skad._export.gaussians import GaussianGrids
from skad._export.reconstructions import ReconstructionGrids, ReconstructionLayers
from skad._export.rendering import ContentSeen, Everything, RegionSeen, Rendering
from skad._export.scoring import Fused, Judged, Scoring
from skad._export.tiles import Tiles
from skad._fusion import ScoreFusionDetector
from skad._images import Footprint, Frame
from skad._padim import PaDiMDetector
from skad._reconstruction import BaseReconstructionDetector
from skad._runtime.content import Rounding


def on_cpu(detector: Any) -> Any:
    """Take a detector's state as it is now, on the CPU, with its network and no store."""
    copied = detector._snapshot()
    del copied.__dict__["_is_snapshot"]
    if isinstance(copied, ScoreFusionDetector):
        copied.estimators_ = [_moved(member) for member in copied.estimators_]
        return copied._as_fitted()
    return _moved(copied)._as_fitted()


def _moved(detector: Any) -> Any:
    copied = detector._snapshot()
    del copied.__dict__["_is_snapshot"]
    copied.__dict__.pop("_scorer", None)
    copied.device, copied.verbose = "cpu", 0
    if hasattr(copied, "memory"):
        copied.memory = None
    return copied


def network_of(detector: Any) -> Judged:
    """Make one network of a detector: from pixels on the canvas to verdicts.

    Parameters
    ----------
    detector : detector
        From `on_cpu`.

    Returns
    -------
    Judged
    """
    scoring: nn.Module
    if isinstance(detector, ScoreFusionDetector):
        members = detector._members
        scoring = Fused(
            [scoring_of(member.detector) for member in members],
            [member.patch for member in members],
            [member.image for member in members],
            detector.level,
            detector.image_score,
        )
    else:
        scoring = scoring_of(detector)
    scores = detector.calibration_scores_
    return Judged(scoring, float(detector.offset_), float(detector._margin), scores)


def members_of(detector: Any) -> list[Any]:
    """Return the detectors that an ensemble is made of; of others, themselves."""
    is_ensemble = isinstance(detector, ScoreFusionDetector)
    return list(detector.estimators_) if is_ensemble else [detector]


def first_member(detector: Any) -> Any:
    """Return the detector whose canvas is that of all; itself unless it is an ensemble."""
    return members_of(detector)[0]


def grid_of(detector: Any) -> tuple[int, int]:
    """Rows and columns of what a detector scores: patches, or pixels of the canvas."""
    if not isinstance(detector, BaseReconstructionDetector):
        return detector._grid()
    height, width = detector.geometry_.canvas
    down, across = (1, 1) if detector._tiling() is None else detector._cell()
    return height // down, width // across


def rounding_of(detector: Any) -> Rounding:
    """Say how far a score may move where a processor rounds otherwise."""
    if isinstance(detector, BaseReconstructionDetector):
        return Rounding("fraction", detector._rounding_of(1.0))
    is_distance = getattr(detector, "distance", None) == "euclidean"
    is_distance |= isinstance(detector, PaDiMDetector)
    return Rounding("distance" if is_distance else "constant", detector._rounding_of(0.0))


def scoring_of(detector: Any) -> Scoring:
    """Make the network that scores canvases by a detector that is no ensemble."""
    grid = grid_of(detector)
    rendering = Rendering(detector._heatmap(), grid)
    return Scoring(_grids(detector), _seen(detector, grid), rendering, detector.image_score)


def embedding_of(detector: Any) -> tuple[PatchEmbedding, BankDistances]:
    """Make the networks that embed patches, and measure their distances to the bank."""
    f = getattr(detector, "components_", None)
    embedding = PatchEmbedding(detector._network, detector._matrices(), f)
    return embedding, BankDistances(detector.bank_, detector._scorer().rule)


def layers_of(detector: Any, tiles: Tiles | None = None) -> ReconstructionLayers:
    """Make the network that compares features with their reconstructions."""
    network = detector._trained_network().eval()
    return ReconstructionLayers(network, detector._network.net, detector._distances, tiles)


def _grids(detector: Any) -> nn.Module:
    tiling, canvas = detector._tiling(), detector.geometry_.canvas
    tiles = None if tiling is None else Tiles(tiling)
    if isinstance(detector, BaseReconstructionDetector):
        return ReconstructionGrids(layers_of(detector, tiles), grid_of(detector), canvas)
    if isinstance(detector, PaDiMDetector):
        pyramid = detector._pyramid()
        return GaussianGrids(detector._network, pyramid, detector.means_, detector.factors_)
    return BankGrids(*embedding_of(detector), canvas, tiles)


def _seen(detector: Any, grid: tuple[int, int]) -> nn.Module:
    geometry, roi = detector.geometry_, detector._roi()
    if roi is None:
        return ContentSeen(grid, geometry.canvas) if geometry.mode == "pad" else Everything()
    mask = roi.of_shape()
    frame = Frame(mask.inside.shape, mask)
    if grid == geometry.canvas:
        pixels = np.array(geometry.pixels(*frame))
        return RegionSeen(Footprint(pixels, pixels), geometry.canvas)
    (footprint,) = geometry.footprints([frame], grid)
    return RegionSeen(footprint, geometry.canvas)
