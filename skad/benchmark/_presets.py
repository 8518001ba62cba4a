"""Rows of the papers' tables as settings of detectors. Figures for comparison: `_published`."""

from __future__ import annotations

from typing import Any

from skad.benchmark._compared import compared
from skad.benchmark._figures import FIGURE_TABLES, figure_rows
from skad.benchmark._preset import Params, Preset
from skad.benchmark._training_free import TRAINING_FREE, TRAINING_FREE_TABLES

# An image is as anomalous as its most anomalous patch, a bank holds 1 % of the patches, and features
# are as the backbone makes them.
_BY_PATCH = {"image_score": "patch"}
_BANK = {
    **_BY_PATCH,
    "coreset_size": 0.01,
    "image_size": 224,
    "layers": (2, 3),
    "patch_size": 3,
    "whitening": 0.0,
}

# ---- PatchCore ------------------------------------------------------------------------------------

# As the official code computes them.
_OFFICIAL = {
    **_BANK,
    "geometry": "crop",
    "aggregation": "adaptive",
    "distance": "squared",
    "coreset_method": "approximate",
}
_WRN101 = "wide_resnet101_2.tv_in1k"
_LARGE = {**_OFFICIAL, "image_size": 280, "resize": 320}
_BACKBONES = {
    "resnet50": "resnet50.tv_in1k",
    "wrn50": "wide_resnet50_2.tv_in1k",
    "resnet101": "resnet101.tv_in1k",
    "wrn101": _WRN101,
    "resnext101": "resnext101_32x8d.tv_in1k",
}
SHOTS = (1, 2, 5, 10, 16, 20, 50)


def _patchcore(title: str, **changes: Any) -> Preset:
    return Preset(f"PatchCore, {title}", "patchcore", {**_OFFICIAL, **changes})


def _shots(n: int, percent: int) -> Preset:
    return Preset(
        f"PatchCore, {percent} %, {n} image{'s' if n > 1 else ''}",
        "patchcore",
        # The tables need no threshold, and a single image gives none.
        {**_OFFICIAL, "coreset_size": percent / 100, "contamination": 0.1},
        shots=n,
        n_seeds=10,
    )


_PATCHCORE = {
    **{
        f"patchcore-{percent}": _patchcore(f"{percent} %", coreset_size=percent / 100)
        for percent in (25, 10, 1)
    },
    **{
        f"patchcore-wrn101-{''.join(map(str, layers))}": Preset(
            f"PatchCore, WRN-101, 280 px, layers {layers}, 1 %",
            "patchcore",
            {**_LARGE, "backbone": _WRN101, "layers": layers},
        )
        for layers in ((2, 3), (1, 2, 3))
    },
    **{
        f"patchcore-{name}-{percent}": _patchcore(
            f"{name}, {percent} %", backbone=backbone, coreset_size=percent / 100
        )
        for name, backbone in _BACKBONES.items()
        for percent in (10, 1)
    },
    **{f"patchcore-{percent}-{n}shot": _shots(n, percent) for percent in (25, 10) for n in SHOTS},
    "patchcore-ensemble": Preset(
        "PatchCore, three backbones, 320 px, 1 %",
        "fusion",
        {
            **_BY_PATCH,
            "estimators": [
                (name, "patchcore", {**_OFFICIAL, "image_size": 320, "resize": 366, "backbone": b})
                for name, b in (
                    ("wrn101", _WRN101),
                    ("resnext101", _BACKBONES["resnext101"]),
                    ("densenet201", "densenet201.tv_in1k"),
                )
            ],
        },
    ),
    "patchcore-augmented": Preset(
        "PatchCore, 1 %, augmented images", "patchcore", _OFFICIAL, augmented=True
    ),
}

# ---- ReConPatch -----------------------------------------------------------------------------------

# The paper trains for 120 epochs at 1e-5.
_PATCHES = {
    **_BANK,
    "geometry": "crop",
    "aggregation": "adaptive",
    "epochs": 120,
    "lr": 1e-5,
}
_LARGEST = {**_PATCHES, "image_size": 480, "resize": 549, "backbone": _WRN101}


def _reconpatch(title: str, **changes: Any) -> Preset:
    return Preset(f"ReConPatch, {title}", "reconpatch", {**_PATCHES, **changes})


def _reconpatch_ensemble(size: int, resize: int, **changes: Any) -> Preset:
    backbones = ("wide_resnet101_2", "resnext101_32x8d", "densenet201")
    params = {**_PATCHES, "image_size": size, "resize": resize, "lr": 1e-6, **changes}
    members = [(b, "reconpatch", {**params, "backbone": f"{b}.tv_in1k"}) for b in backbones]
    title = f"ReConPatch, three backbones, {size} px"
    return Preset(title, "fusion", {**_BY_PATCH, "estimators": members})


_RECONPATCH = {
    "reconpatch": _reconpatch("512, 1 %"),
    **{
        f"reconpatch-1024-{percent}": _reconpatch(
            f"1024, {percent} %", embedding_dim=1024, coreset_size=percent / 100
        )
        for percent in (25, 10, 1)
    },
    **{f"reconpatch-{d}": _reconpatch(f"{d}, 1 %", embedding_dim=d) for d in (64, 128, 256)},
    "reconpatch-p5": _reconpatch("p = 5", patch_size=5),
    "reconpatch-p5-layers123": _reconpatch("p = 5, layers 1-3", patch_size=5, layers=(1, 2, 3)),
    "reconpatch-wrn101-480": Preset(
        "ReConPatch, WRN-101, 480 px", "reconpatch", {**_LARGEST, "patch_size": 5, "lr": 1e-6}
    ),
    **{f"reconpatch-k{k}": _reconpatch(f"k = {k}", k=k) for k in (3, 7, 10, 15, 20)},
    **{f"reconpatch-m{m}": _reconpatch(f"m = {m}", m=m) for m in (0.5, 1.5, 2.0)},
    **{
        f"reconpatch-alpha{a}": _reconpatch(f"alpha = {a}", alpha=a) for a in (0.0, 0.25, 0.75, 1.0)
    },
    "reconpatch-no-g": _reconpatch("without g", projection_dim=None),
    "reconpatch-augmented": Preset(
        "ReConPatch, 512, 1 %, augmented images", "reconpatch", _PATCHES, augmented=True
    ),
    "reconpatch-ensemble-320": _reconpatch_ensemble(320, 366, embedding_dim=384, epochs=60),
    "reconpatch-ensemble-480": _reconpatch_ensemble(480, 549, patch_size=5),
}

# ---- ReContrast -----------------------------------------------------------------------------------

# All good images are learned from, as in the paper; the tables need no threshold.
_ALL = {"validation_fraction": 0.0, "contamination": 0.05, "bn": "train"}
_EVAL = {"bn": "eval"}
_EVAL_CATEGORIES = dict.fromkeys(
    ("toothbrush", "leather", "grid", "tile", "wood", "screw", "cashew", "pcb1"), _EVAL
)
_OWN = {"pairs": "own"}
_FROZEN = {**_OWN, "train_encoder": False}
_PLAIN = {"hard_mining": False}
_CONFIGS: dict[str, Params] = {
    "A": {**_FROZEN, **_PLAIN, "loss": "regional"},
    "B": {**_FROZEN, **_PLAIN},
    "B+hm": _FROZEN,
    "C": {**_OWN, **_PLAIN, "stop_gradient": False},
    "C+cp": {**_PLAIN, "stop_gradient": False},
    "D": {**_OWN, **_PLAIN},
    "E-gl": {**_PLAIN, "loss": "regional"},
    "E": _PLAIN,
}


_LARGE_BATCH = {"batch_size": 32}
_APTOS = {"max_iter": 1000, **_LARGE_BATCH}
_OCT2017 = {**_APTOS, **_EVAL}
_ISIC2018 = {
    **_LARGE_BATCH,
    "geometry": "crop",
    "image_size": 224,
    "resize": 256,
    "image_score": 1.0,
}
# A data set without categories is one, named after itself.
_MEDICAL: dict[str, Params] = {"aptos": _APTOS, "oct2017": _OCT2017, "isic2018": _ISIC2018}


def _recontrast(title: str, **changes: Any) -> Preset:
    params = {**_ALL, **changes}
    own = {} if "bn" in changes else _EVAL_CATEGORIES
    return Preset(f"ReContrast, {title}", "recontrast", params, own)


def _ablation(title: str, **changes: Any) -> Preset:
    """Make a row that the paper prints for MVTec AD and for APTOS."""
    own: dict[str, Params] = {**_EVAL_CATEGORIES, "aptos": _APTOS}
    return Preset(f"ReContrast, {title}", "recontrast", {**_ALL, **changes}, own)


_RECONTRAST = {
    "recontrast": _ablation("2,000 steps"),
    "recontrast-visa": _recontrast("3,000 steps", max_iter=3000),
    "recontrast-seeds": Preset(
        "ReContrast, three seeds", "recontrast", _ALL, _EVAL_CATEGORIES, n_seeds=3
    ),
    "recontrast-stable": _recontrast("stable", bn="stable", warmup_fraction=0.2),
    "recontrast-multi-class": Preset(
        "ReContrast, one model for all",
        "recontrast",
        {**_ALL, **_EVAL, "max_iter": 5000, "image_score": 0.01},
        one_model=True,
    ),
    "recontrast-medical": Preset("ReContrast, medical images", "recontrast", _ALL, _MEDICAL),
    "recontrast-aptos": _recontrast("APTOS", **_APTOS),
    "recontrast-oct2017": _recontrast("OCT2017", **_OCT2017),
    "recontrast-isic2018": _recontrast("ISIC2018", **_ISIC2018),
    "recontrast-loco": Preset(
        "ReContrast, MVTec LOCO AD",
        "recontrast",
        _ALL,
        note="the paper does not say how it trained for this table; here 2,000 steps, as on MVTec AD",
    ),
    **{f"recontrast-{c}": _ablation(f"configuration {c}", **p) for c, p in _CONFIGS.items()},
    "recontrast-no-mining": _recontrast("alpha = -inf", hard_mining=False),
    **{
        f"recontrast-alpha{a}": _recontrast(f"alpha = {a}", alpha=a)
        for a in (-2.0, -1.0, 0.0, 0.5, 1.5, 2.0)
    },
    "recontrast-resnet18": _recontrast("ResNet-18", backbone="resnet18.tv_in1k"),
    "recontrast-resnet50": _recontrast("ResNet-50", backbone="resnet50.tv_in1k"),
    **{f"recontrast-maps-{m}": _ablation(f"{m} maps", maps=m) for m in ("frozen", "trained")},
}

# ---- Dinomaly -------------------------------------------------------------------------------------

# Guo et al., CVPR 2025; code: github.com/guojiajeremy/Dinomaly at c5c76d01.
_DINOMALY_SETTINGS = {
    "geometry": "crop",
    "image_size": 392,
    "resize": 448,
    "image_score": 0.01,
    **{name: _ALL[name] for name in ("validation_fraction", "contamination")},
}


_DINOMALY_NOTE = "maps are smoothed by a Gaussian of 2 px, there by a window of 5 x 5 at 256 px"
# The authors' README shows these tables as pictures.
_UNREAD = f"{_DINOMALY_NOTE}; no published figure could be read"


def _dinomaly(title: str, note: str = _DINOMALY_NOTE, **changes: Any) -> Preset:
    params = {**_DINOMALY_SETTINGS, **changes}
    return Preset(f"Dinomaly, {title}", "dinomaly", params, one_model=True, note=note)


_DINOMALY = {
    "dinomaly": _dinomaly("ViT-B, one model for all"),
    "dinomaly-small": _dinomaly(
        "ViT-S, one model for all", _UNREAD, backbone="vit_small_patch14_reg4_dinov2.lvd142m"
    ),
    "dinomaly-large": _dinomaly(
        "ViT-L, one model for all", backbone="vit_large_patch14_reg4_dinov2.lvd142m"
    ),
    "dinomaly-single": Preset(
        "Dinomaly, ViT-B, a model for each",
        "dinomaly",
        {**_DINOMALY_SETTINGS, "max_iter": 5000},
        note=_UNREAD,
    ),
}

PRESETS: dict[str, Preset] = {
    **_PATCHCORE,
    **figure_rows(_OFFICIAL),
    **_RECONPATCH,
    **_RECONTRAST,
    **_DINOMALY,
    **compared(SHOTS),
    **TRAINING_FREE,
}

# Whole tables, which ``--preset`` accepts like single rows.
TABLES: dict[str, tuple[str, ...]] = {
    "patchcore-table-s1": ("spade", "padim", "patchcore-25", "patchcore-10", "patchcore-1"),
    "patchcore-table-s4": ("patchcore-wrn101-23", "patchcore-wrn101-123"),
    "patchcore-table-s5": tuple(
        f"{row}-{n}shot"
        for row in ("spade", "padim", "patchcore-10", "patchcore-25")
        for n in SHOTS
    ),
    "patchcore-table-s6": tuple(f"patchcore-{b}-{s}" for b in _BACKBONES for s in (10, 1)),
    "reconpatch-table-1": tuple(f"reconpatch-1024-{s}" for s in (25, 10, 1)),
    "reconpatch-table-2": (
        *(f"reconpatch-{d}" for d in (64, 128, 256)),
        *("reconpatch", "reconpatch-1024-1"),
    ),
    "reconpatch-table-3": ("reconpatch-p5", "reconpatch-p5-layers123"),
    "reconpatch-table-4": ("patchcore-1", "reconpatch", "reconpatch-wrn101-480"),
    "reconpatch-table-5": ("patchcore-1", "reconpatch-p5-layers123", "reconpatch-wrn101-480"),
    "reconpatch-table-6": (
        *("patchcore-ensemble", "reconpatch-ensemble-320", "reconpatch-ensemble-480"),
    ),
    "reconpatch-table-s1": tuple(
        "reconpatch" if k == 5 else f"reconpatch-k{k}" for k in (3, 5, 7, 10, 15, 20)
    ),
    "reconpatch-table-s2": tuple(
        "reconpatch" if m == 1 else f"reconpatch-m{m}" for m in (0.5, 1.0, 1.5, 2.0)
    ),
    "reconpatch-table-s3": tuple(
        "reconpatch" if a == 0.5 else f"reconpatch-alpha{a}" for a in (0.0, 0.25, 0.5, 0.75, 1.0)
    ),
    "reconpatch-table-s4": ("reconpatch-no-g", "reconpatch"),
    "reconpatch-table-s5": (
        *("patchcore-1", "patchcore-augmented", "reconpatch", "reconpatch-augmented"),
    ),
    "recontrast-table-1": ("recontrast",),
    "recontrast-table-2": ("recontrast",),
    "recontrast-table-3": ("recontrast-visa",),
    "recontrast-table-4": ("recontrast-multi-class",),
    "recontrast-table-5": ("recontrast-medical",),
    "recontrast-table-6": (*(f"recontrast-{c}" for c in _CONFIGS), "recontrast"),
    "recontrast-table-a1": ("recontrast",),
    "recontrast-table-a2": ("recontrast-seeds",),
    "recontrast-table-a3": ("recontrast-visa",),
    "recontrast-table-a4": (
        "recontrast-no-mining",
        *(
            "recontrast" if a == 1 else f"recontrast-alpha{a}"
            for a in (-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0)
        ),
    ),
    "recontrast-table-a5": ("recontrast-resnet18", "recontrast-resnet50", "recontrast"),
    "recontrast-table-a6": (
        *("recontrast-B", "recontrast-maps-frozen", "recontrast-maps-trained", "recontrast"),
    ),
    "recontrast-table-a7": ("recontrast-loco",),
    **FIGURE_TABLES,
    **TRAINING_FREE_TABLES,
}
# One run gives all three: image AUROC, pixel AUROC and AUPRO.
TABLES |= {f"patchcore-table-s{i}": TABLES["patchcore-table-s1"] for i in (2, 3)}
