"""Rows of SPADE and PaDiM in the supplement of PatchCore's paper (Tables S1 to S3, and S5)."""

from __future__ import annotations

from typing import Any

from skad.benchmark._preset import Preset

_WRN50 = "wide_resnet50_2.tv_in1k"
# The tables need no threshold, and a single image gives none.
_COMMON = {"backbone": _WRN50, "geometry": "crop", "image_size": 224, "contamination": 0.1}
_K = 50
_TITLES = {"spade": "SPADE", "padim": "PaDiM"}
# Of the re-implementation, the supplement tells the backbone alone.
_NOTE = (
    "the supplement tells the backbone alone; the rest is as in the methods' own papers: SPADE with 50 "
    "nearest images (all where there are fewer), PaDiM with 550 channels"
)


def _preset(method: str, shots: int | None) -> Preset:
    params: dict[str, Any] = dict(_COMMON)
    if method == "spade":
        params["k"] = _K if shots is None else min(_K, shots)
    title = _TITLES[method]
    if shots is None:
        return Preset(title, method, params, note=_NOTE)
    title = f"{title}, {shots} image{'s' if shots > 1 else ''}"
    return Preset(title, method, params, shots=shots, n_seeds=10, note=_NOTE)


def compared(shots: tuple[int, ...]) -> dict[str, Preset]:
    """Make the presets of both methods.

    Parameters
    ----------
    shots : tuple of int
        Numbers of images of Table S5.

    Returns
    -------
    dict of str to Preset
    """
    return {
        **{method: _preset(method, None) for method in _TITLES},
        **{f"{method}-{n}shot": _preset(method, n) for method in _TITLES for n in shots},
    }
