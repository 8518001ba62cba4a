"""The weights of a detector's backbone, inside its own file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skad._base import OTHER_WEIGHTS
from skad._features import load_backbone
from skad._features.weight_files import BACKBONE_PREFIX
from skad.persistence._content import SUFFIX, contiguous


def backbone_tensors(detector: Any) -> dict[str, np.ndarray]:
    """Read the weights of a fitted detector's backbone.

    Parameters
    ----------
    detector : detector

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        If it has several, or its weights are others than those of the fit.
    """
    members = _members(detector)
    if len({member.weights_digest_ for member in members}) > 1:
        raise ValueError(
            "include_backbone=True holds one backbone per file, and the members of this ensemble have "
            "several: ship their weights as files of their own (weights=)."
        )
    member = members[0]
    spec = getattr(member, "feature_spec_", None)
    net = load_backbone(
        member.backbone,
        member.weights,
        member._layers() if spec is None else spec.layers,
        torch.device("cpu"),
        final_norm=spec is not None and spec.final_norm,
    )
    if net.digest != member.weights_digest_:
        raise ValueError(OTHER_WEIGHTS)
    state = getattr(net.body, "model", net.body).state_dict()
    return {
        f"{BACKBONE_PREFIX}{name}": contiguous(tensor.numpy()) for name, tensor in state.items()
    }


def is_own_backbone(path: Path, detector: Any) -> bool:
    """Whether a file that is about to be replaced holds the weights of the detector's backbone.

    Parameters
    ----------
    path : Path
    detector : detector

    Returns
    -------
    bool
        True where the new file can take the place of the old one, because it will hold them as well.

    Raises
    ------
    ValueError
        If it cannot, since it is no file of skad's.
    """
    for member in _members(detector):
        if not _is_file(member.weights) or not path.exists():
            continue
        if os.path.samefile(member.weights, path):
            if Path(member.weights).suffix != SUFFIX:
                raise ValueError(
                    f"{os.fspath(path)!r} is a link to the weights of the detector's backbone, "
                    f"{os.fspath(member.weights)!r}, which would be lost: save it elsewhere."
                )
            return True
    return False


def find_inside(detector: Any, path: Path, names: Iterable[str]) -> None:
    """Point a detector to the weights that its own file holds, if it holds any.

    Parameters
    ----------
    detector : detector
        Changed.
    path : Path
    names : iterable of str
        Of the tensors in the file.
    """
    if any(name.startswith(BACKBONE_PREFIX) for name in names):
        for member in _members(detector) + _given(detector):
            member.weights = os.path.abspath(path)  # the working folder may change


def _members(detector: Any) -> list[Any]:
    return list(detector.estimators_) if hasattr(detector, "estimators_") else [detector]


def _given(detector: Any) -> list[Any]:
    """Members as they were given, for the next fit, if they have been fitted."""
    fitted = getattr(detector, "_names", ())
    return [member for name, member in getattr(detector, "estimators", ()) if name in fitted]


def _is_file(weights: Any) -> bool:
    return weights not in (None, "pretrained") and os.path.isfile(weights)
