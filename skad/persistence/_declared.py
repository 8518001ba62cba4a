"""What detectors, and the objects they are made of, may hold in a file: declared once, here.

A fitted attribute that is new takes one line in a table below. Where files of older versions lack it,
the line goes into a group of `Declared.later`, whose attributes are all there or all absent.
Parameters are read off the signatures, and checked by scikit-learn against `_parameter_constraints`; the
table `PARAMETERS` says more of some. `_checks` holds objects to all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skad._bank import Cover, MemoryBank
from skad._dinomaly import DinomalyDetector
from skad._features import FeatureSpec
from skad._fusion import Member, ScoreFusionDetector
from skad._images import Geometry, RegionOfInterest, Tiling, as_tiles
from skad._padim import PaDiMDetector
from skad._patchcore import PatchCoreDetector
from skad._reconpatch import ReConPatchDetector
from skad._recontrast import ReContrastDetector
from skad._scoring.calibration import CalibrationLog
from skad._scoring.fusing import RobustScale
from skad._scoring.growing import Growth
from skad._spade import SPADEDetector
from skad.persistence._relations import (
    RELATED_BANKS,
    RELATED_GAUSSIANS,
    RELATED_MEMBERS,
    RELATED_NETWORK,
    RELATED_PLACES,
    Relation,
    is_left_out,
)
from skad.persistence._rules import (
    Rule,
    Table,
    array,
    arrays,
    either,
    flag,
    floats,
    instance,
    integer,
    integers,
    nothing,
    number,
    optional,
    or_auto,
    several,
    squares,
    text,
    texts,
)

IMAGE_DETECTORS = (
    *(PatchCoreDetector, ReConPatchDetector, ReContrastDetector, DinomalyDetector),
    *(PaDiMDetector, SPADEDetector),
)
DETECTORS = (*IMAGE_DETECTORS, ScoreFusionDetector)

# What scikit-learn keeps on a detector, and what is built anew where it is needed.
LEFT_BEHIND = frozenset(
    {
        *("_skl_callbacks", "_parent_callback_ctx", "_scorer", "_sklearn_output_config"),
        "_folder_at_fit",
    }
)


@dataclass(frozen=True)
class Declared:
    """The attributes of a class."""

    always: Table
    later: tuple[Table, ...] = ()
    """Groups of attributes that are all there or all absent."""
    relations: tuple[Relation, ...] = ()


# ---- parameters --------------------------------------------------------------------------------------

SIDE = integer(1, 2**16)
SEED = integer(0, 2**32 - 1)
# Of the feature maps that precomputed features are made of.
SHAPE = several(integer(1, 2**20), 3, 3)
SIZE = Rule("a side or two", lambda v, n: SIDE.holds(v, n) or several(SIDE, 2, 2).holds(v, n))

# Beyond what the constraints of the classes say. All others are plain.
PARAMETERS: Mapping[str, Rule] = {
    "backbone": text(),
    "weights": optional(text()),
    "layers": or_auto(either(integers(0, 1000), several(SHAPE, high=1000))),
    "patch_size": or_auto(SIDE),
    "pretrain_dim": integer(1, 2**20),
    "target_dim": integer(1, 2**20),
    "image_size": or_auto(SIZE),
    "resize": optional(SIDE),
    "tiles": Rule("None, 'native', or rows and columns", lambda v, n: _is_tiles(v)),
    "image_shape": optional(integers(1, 2**31)),
    "smoothing": number(0, 1e4),
    "roi": Rule("None, a mask or the path of one", lambda v, n: _is_roi(v)),
    "memory": nothing(),
    "random_state": optional(SEED),
    "estimators": several(
        Rule("a pair of a name and a detector", lambda value, _: _is_pair(value)), 1, 999
    ),
}


def _is_roi(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return True
    try:
        return np.ndim(value) == 2 and np.asarray(value).dtype.kind in "buif"
    except ValueError:
        return False


def _is_tiles(value: Any) -> bool:
    try:
        as_tiles(value)
    except ValueError:
        return False
    return True


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and (value[1] == "drop" or type(value[1]) in IMAGE_DETECTORS)
    )


# ---- fitted attributes -------------------------------------------------------------------------------

_OF_ALL: Table = {
    "n_images_": integer(1, 2**31),
    "offset_": number(),
    "heatmap_threshold_": number(),
    "training_scores_": array("float64", "n_images", finite=False),
    "calibration_scores_": optional(array("float64", "n_calibration", ascending=True)),
    "_calibration_peaks": array("float64", "n_peaks", ascending=True),
    "_margin": number(0),
    "_params_at_fit": Rule("a mapping", lambda value, _: isinstance(value, dict)),
}
_OF_IMAGES: Table = {
    **_OF_ALL,
    "geometry_": instance(Geometry),
    "weights_digest_": text(),
}
_OF_BANKS: Table = {
    **_OF_IMAGES,
    "feature_spec_": instance(FeatureSpec),
    "bank_": instance(MemoryBank),
    "trimmed_indices_": array("int64", "n_trimmed", low=0, ascending=True),
}
_OF_NETWORKS: Table = {
    **_OF_IMAGES,
    "_seed": SEED,
    "network_": arrays("float32", "int64"),
    "loss_curve_": array("float64", "n_iter", finite=False),
    "n_iter_": integer(),
    "validation_indices_": array("int64", "n_left_out", low=0),
}
# Only if X held rows, or a table.
_OF_ROWS: tuple[Table, ...] = (
    {"n_features_in_": integer(1)},
    {"feature_names_in_": texts()},
)
# For partial_fit.
_GROWTH: Table = {
    "_growth": instance(Growth),
    "coreset_radius_": optional(number(0)),
}
_WHITENING: Table = {
    "whitening_": several(squares("float32"), 0, 1000, kinds=(list,)),
    "_rounding_gain": number(0),
}
_REGIONS: Table = {"roi_": optional(instance(RegionOfInterest))}
_TILES: Table = {"tiling_": optional(instance(Tiling))}


def _training(params: Table) -> Table:
    """Say what a warm start needs, the parameters that must be as they were among it."""
    return {
        "_resumable": {
            "params": {
                **params,
                "backbone": text(),
                "geometry": text(),
                "image_size": PARAMETERS["image_size"],
                "resize": optional(SIDE),
            },
            "digest": text(),
            "network": arrays("float32", "int64"),
            "optimizer": arrays("float32"),
            "n_iter": integer(),
            "seed": SEED,
            "curves": several(array("float64", "n_iter"), 1, 2),
        }
    }


DECLARED: Mapping[type, Declared] = {
    Geometry: Declared(
        {"mode": text(), "image_size": SIZE, "resize": optional(SIDE)},
        ({"tiling": optional(instance(Tiling))},),
    ),
    RegionOfInterest: Declared(
        {"mask": array("bool", "roi_height", "roi_width"), "function": nothing()},
        relations=(Relation("mask", "hold a pixel that counts", lambda s: s.mask.any()),),
    ),
    Tiling: Declared(
        {
            "tile": SIZE,
            "rows": optional(integer(1, 2**16)),
            "columns": optional(integer(1, 2**16)),
            "margin": several(integer(0, 2**16), 2, 2),
            "stride": SIDE,
            "extent": nothing(),
        }
    ),
    FeatureSpec: Declared(
        {
            "backbone": text(),
            "layers": either(
                several(integer(0, 1000), kinds=(tuple,)),
                several(SHAPE, high=1000, kinds=(tuple,)),
            ),
            "image_size": SIZE,
            "patch_size": SIDE,
            "aggregation": text(),
            "pretrain_dim": integer(1, 2**20),
            "target_dim": integer(1, 2**20),
            "precision": text(),
        },
        ({"normalize": flag()},),
    ),
    MemoryBank: Declared(
        {
            "vectors": array("float32", "M", "d"),
            "sources": array("int64", "M", low=0),
            "index": text(),
        },
        relations=(
            Relation(
                "vectors",
                "hold at least one vector of at least one number",
                lambda s: s.vectors.size,
            ),
        ),
    ),
    Cover: Declared({"radius": number(0), "net_size": integer(), "net_scale": number(0)}),
    CalibrationLog: Declared(
        {
            # NaN: images that were trimmed, and the first image of all, if it was alone.
            "out_of_sample": array("float64", "n", finite=False),
            "in_sample": optional(array("float64", "n")),
            "peaks": array("float64", "n"),
            "n_images": array("int64", "n", low=1),
        },
        relations=(
            Relation("peaks", "hold at least one value", lambda s: len(s.peaks)),
            Relation(
                "out_of_sample",
                "be bounded, or NaN of a single image or of those trimmed",
                is_left_out,
            ),
        ),
    ),
    Growth: Declared(
        {
            "n_patches": integer(1),
            "seed": SEED,
            "cover": optional(instance(Cover)),
            "log": instance(CalibrationLog),
        }
    ),
    RobustScale: Declared({"median": number(), "spread": number(0, above=True)}),
    Member: Declared(
        {
            "detector": instance(*IMAGE_DETECTORS),
            "patch": instance(RobustScale),
            "image": instance(RobustScale),
        }
    ),
    PatchCoreDetector: Declared(
        _OF_BANKS, (_GROWTH, _WHITENING, _REGIONS, _TILES, *_OF_ROWS), RELATED_BANKS
    ),
    ReConPatchDetector: Declared(
        {
            **_OF_BANKS,
            "components_": array("float32", "d", "n_values"),
            "sigma_": number(0),
            "loss_curve_": array("float64", "n_iter", finite=False),
            "n_iter_": integer(),
        },
        (_GROWTH, _WHITENING, _REGIONS, _TILES, *_OF_ROWS),
        (
            *RELATED_BANKS,
            Relation(
                "components_",
                "map to the vectors of the bank",
                lambda s: len(s.components_) == s.bank_.vectors.shape[1],
            ),
            Relation(
                "loss_curve_", "hold n_iter_ values", lambda s: len(s.loss_curve_) == s.n_iter_
            ),
        ),
    ),
    ReContrastDetector: Declared(
        {**_OF_NETWORKS, "feature_diversity_": array("float64", "n_iter", finite=False)},
        (
            _training({"pairs": text(), "train_encoder": flag()}),
            *(_REGIONS, _TILES, *_OF_ROWS),
        ),
        RELATED_NETWORK,
    ),
    DinomalyDetector: Declared(
        {**_OF_NETWORKS, "layers_": integers(0, 1000)},
        (
            _training({"layers": PARAMETERS["layers"], "n_groups": integer(1, 1000)}),
            *(_REGIONS, _TILES, *_OF_ROWS),
        ),
        RELATED_NETWORK,
    ),
    PaDiMDetector: Declared(
        {
            **_OF_IMAGES,
            "feature_spec_": instance(FeatureSpec),
            "channels_": array("int64", "n_channels", low=0, ascending=True),
            "means_": several(floats(2), 1, 1000, kinds=(list,)),
            "factors_": several(floats(3), 1, 1000, kinds=(list,)),
        },
        (_REGIONS, _TILES, *_OF_ROWS),
        RELATED_GAUSSIANS,
    ),
    SPADEDetector: Declared(
        {
            **_OF_IMAGES,
            "feature_spec_": instance(FeatureSpec),
            "layers_": integers(0, 1000),
            "image_layer_": integer(0, 1000),
            "descriptors_": array("float32", "n_images", "n_values"),
            "features_": array("float32", "n_images", "n_features"),
            "counting_": array("bool", "n_images", "height", "width"),
        },
        (_REGIONS, _TILES, *_OF_ROWS),
        RELATED_PLACES,
    ),
    ScoreFusionDetector: Declared(
        {
            **_OF_ALL,
            "_names": several(text(), 1, 999, kinds=(list,)),
            "estimators_": several(instance(*IMAGE_DETECTORS), 1, 999, kinds=(list,)),
            "_members": several(instance(Member), 1, 999, kinds=(list,)),
            "_share_grid": flag(),
            "_members_at_fit": several(several(number(), 2, 2), 1, 999, kinds=(list,)),
        },
        _OF_ROWS,
        RELATED_MEMBERS,
    ),
}
CLASSES = {cls.__name__: cls for cls in DECLARED}
