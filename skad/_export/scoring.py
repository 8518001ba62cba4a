"""The whole of a detector as one network: from pixels on the canvas to scores, verdicts and maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from skad._export.rendering import Rendering, Seen, summed_up
from skad._scoring.fusing import RobustScale
from skad._scoring.maps import ImageScore


class Scored(NamedTuple):
    """What is known of a batch of images."""

    scores: torch.Tensor
    """(B,), higher = more anomalous."""
    maps: torch.Tensor
    """(B, H, W)"""
    grids: torch.Tensor
    """(B, h, w)"""
    seen: Seen


class Scoring(nn.Module):
    """Scores images by the maps of one detector.

    Parameters
    ----------
    grids : torch.nn.Module
        Maps pixels (B, H, W, 3), float32 in 0..1, and what of them is seen to grids (B, h, w) and scores
        (B,), or None where those follow from the maps.
    seen : torch.nn.Module
        Maps where images lie, (B, 4), to what is seen.
    rendering : Rendering
    image_score : "map", "patch" or float
    """

    def __init__(
        self, grids: nn.Module, seen: nn.Module, rendering: Rendering, image_score: ImageScore
    ) -> None:
        super().__init__()
        self.grids, self.seen, self.rendering = grids, seen, rendering
        self.image_score = image_score

    def forward(
        self, pixels: torch.Tensor, content: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return anomaly scores (B,) and maps (B, H, W)."""
        scored = self.score(pixels, content)
        return scored.scores, scored.maps

    def score(self, pixels: torch.Tensor, content: torch.Tensor | None) -> Scored:
        """Return all that is known of images."""
        seen: Seen = self.seen(content)
        grids, scores = self.grids(pixels, seen)
        maps = self.rendering(grids, seen)
        if scores is None:
            scores = summed_up(maps, seen, self.image_score)
        return Scored(scores, maps, grids, seen)


class Fused(nn.Module):
    """Scores images by the mean of several detectors' modified z-scores, on one canvas.

    Parameters
    ----------
    members : sequence of Scoring
    patch, image : sequences of RobustScale
        Scales of the members' patch and image scores.
    level : {"map", "image"}
    image_score : "map", "patch" or float
    """

    def __init__(
        self,
        members: Sequence[Scoring],
        patch: Sequence[RobustScale],
        image: Sequence[RobustScale],
        level: str,
        image_score: ImageScore,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.patch, self.image = patch, image
        self.level, self.image_score = level, image_score

    def forward(
        self, pixels: torch.Tensor, content: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return anomaly scores (B,) and maps (B, H, W)."""
        found = [member.score(pixels, content) for member in self.members]  # type: ignore[operator]
        # Rendering is linear, and its weights add up to 1: z-scores of maps are maps of z-scores.
        maps = _mean_z([one.maps for one in found], self.patch)
        if self.level == "image":
            return _mean_z([one.scores for one in found], self.image), maps
        if self.image_score != "patch":
            return summed_up(maps, found[0].seen, self.image_score), maps
        cells = _mean_z([one.grids for one in found], self.patch).flatten(1)
        if found[0].seen.cells is not None:
            cells = torch.where(found[0].seen.cells, cells, -torch.inf)
        return cells.amax(dim=1), maps


def _mean_z(values: Sequence[torch.Tensor], scales: Sequence[RobustScale]) -> torch.Tensor:
    scaled = [scale.z(one) for one, scale in zip(values, scales, strict=True)]
    return torch.stack(scaled).mean(dim=0)


class Judged(nn.Module):
    """Adds verdicts, and p-values where there are calibration scores.

    Parameters
    ----------
    scoring : torch.nn.Module
    offset, margin : float
    calibration_scores : sequence of float or None
    """

    def __init__(
        self,
        scoring: nn.Module,
        offset: float,
        margin: float,
        calibration_scores: Sequence[float] | None,
    ) -> None:
        super().__init__()
        self.scoring, self.offset, self.margin = scoring, offset, margin
        self.has_p_values = calibration_scores is not None
        if calibration_scores is not None:
            self.register_buffer("calibration", torch.from_numpy(np.array(calibration_scores)))

    def forward(
        self, pixels: torch.Tensor, content: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Return scores, verdicts and maps, and p-values if there are any."""
        anomaly, maps = self.scoring(pixels, content)
        score = -anomaly
        exact = score.double()
        is_good = exact >= self.offset
        verdict = 2 * is_good.to(torch.int64) - 1
        if not self.has_p_values:
            return score, verdict, maps
        lower = self.calibration[None] <= (exact + self.margin)[:, None]  # type: ignore[index]
        n = len(self.calibration)  # type: ignore[arg-type]
        p_value = (1 + lower.to(torch.float64).sum(dim=1)) / (1 + n)
        return score, verdict, maps, p_value.float()
