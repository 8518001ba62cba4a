"""Recipes for vision transformers that train nothing: AnomalyDINO and SuperADD, as far as skad goes."""

from __future__ import annotations

from typing import Any

from skad.benchmark._preset import Preset

# Shots of the paper, each with three draws of the good images.
_SHOTS = (1, 2, 4, 8, 16)

# Damm et al., arXiv:2405.14529v3; code: github.com/dammsi/AnomalyDINO at b3435f0.
# Tokens of the last block behind the final norm, cosine distance (half of the squared one of vectors of
# length 1) to the nearest of all patches.
_ANOMALYDINO: dict[str, Any] = {
    "backbone": "vit_small_patch14_dinov2.lvd142m",
    "layers": (11,),
    "patch_size": 1,
    "normalize": True,
    "whitening": 0.0,
    "coreset_size": 1.0,
    "distance": "squared",
    "image_score": 0.01,
    # The tables need no threshold, and a single image and its copies give none.
    "contamination": 0.1,
}
# What the paper smooths by 4 px is an image of 700 to 1,024 px.
_SMOOTHING = {448: 2.0, 672: 3.0}
_ANOMALYDINO_NOTE = (
    "without the mask of the foreground (first principal component of the tokens); the score is the "
    "mean of the highest hundredth of the smoothed map, there of the patches; images become squares, "
    "there their aspect is kept; corners of rotated copies are black, there mirrored; good images are "
    "drawn at random, there the first ones"
)


def _anomalydino(shots: int | None, size: int) -> Preset:
    amount = "all images" if shots is None else f"{shots} image{'s' if shots > 1 else ''}"
    return Preset(
        f"AnomalyDINO-S ({size}), {amount}",
        "patchcore",
        {**_ANOMALYDINO, "image_size": size, "smoothing": _SMOOTHING[size]},
        shots=shots,
        n_seeds=1 if shots is None else 3,
        # "agnostic": copies in eight directions, unless there are images enough.
        rotations=1 if shots is None else 8,
        note=_ANOMALYDINO_NOTE,
    )


def _name(shots: int | None, size: int) -> str:
    return f"anomalydino-{'' if size == 448 else f'{size}-'}{'all' if shots is None else f'{shots}shot'}"


# Roming et al., github.com/LukasRoom/SuperADD at 44cf251 (config.json), arXiv:2605.14808.
_SUPERADD = Preset(
    "SuperADD, tiles of 640 px",
    "patchcore",
    {
        "backbone": "vit_huge_plus_patch16_dinov3.lvd1689m",
        "layers": (7, 15, 23, 31),
        "patch_size": 1,
        "normalize": False,
        "whitening": 0.0,
        "coreset_size": 100_000,
        "image_size": 640,
        "tiles": "native",
    },
    note=(
        "one bank of the four blocks joined, there a bank for each block and the mean of the distances; "
        "images at their own resolution, there at 0.625 of it; neighbouring tiles overlap by 128 px, "
        "there by 256; a greedy coreset, there one thinned by density; without training images of "
        "random brightness, and without closing and filling of what lies above the threshold"
    ),
)

TRAINING_FREE: dict[str, Preset] = {
    **{
        _name(shots, size): _anomalydino(shots, size)
        for size in _SMOOTHING
        for shots in (*_SHOTS, None)
    },
    "superadd": _SUPERADD,
}
TRAINING_FREE_TABLES: dict[str, tuple[str, ...]] = {
    "anomalydino-table-2": tuple(_name(n, size) for n in _SHOTS for size in _SMOOTHING),
    "anomalydino-table-5": tuple(_name(None, size) for size in _SMOOTHING),
    "anomalydino-table-6": tuple(_name(n, 672) for n in _SHOTS),
}
