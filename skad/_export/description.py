"""What the header of an exported file says of a detector."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from skad._common.pickles import versions
from skad._export.detectors import first_member, grid_of, members_of, rounding_of
from skad._export.parts import needs_parts, parts_of
from skad._runtime.content import Content, Thresholds


def describe(detector: Any) -> Content:
    """Describe a detector.

    Parameters
    ----------
    detector : detector
        From `on_cpu`.

    Returns
    -------
    Content
        Not verified.
    """
    member = first_member(detector)
    given = member.image_shape
    return Content(
        detector=type(detector).__name__,
        backbone=" + ".join(_named(one.backbone) for one in members_of(detector)),
        geometry=member.geometry_,
        grid=grid_of(member),
        smallest_side=max(int(one._smallest_side()) for one in members_of(detector)),
        image_shape=None if given is None else tuple(int(side) for side in given),
        roi=member._roi(),
        contamination=_plain(detector.contamination),
        image_score=_plain(detector.image_score),
        has_one_threshold=bool(detector._has_one_threshold()),
        thresholds=_thresholds(detector),
        rounding=rounding_of(detector),
        versions=versions(),
        verified={},
        parts=parts_of(detector) if needs_parts(detector) else (),
        level=getattr(detector, "level", "map"),
        shares_grid=getattr(detector, "_share_grid", True),
    )


def verified_on(content: Content, found: dict[str, Any]) -> Content:
    """Note on what an export was verified."""
    return replace(content, verified=found)


def _thresholds(detector: Any) -> Thresholds:
    scores = detector.calibration_scores_
    return Thresholds(
        offset=float(detector.offset_),
        margin=float(detector._margin),
        heatmap_threshold=float(detector.heatmap_threshold_),
        calibration_scores=None if scores is None else np.asarray(scores).tolist(),
        calibration_peaks=np.asarray(detector._calibration_peaks).tolist(),
        target_false_alarm_rate=float(detector.target_false_alarm_rate),
    )


def _named(backbone: Any) -> str:
    return type(backbone).__name__ if isinstance(backbone, nn.Module) else str(backbone)


def _plain(value: Any) -> str | float:
    return value if isinstance(value, str) else float(value)
