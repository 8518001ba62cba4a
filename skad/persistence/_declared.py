"""What detectors, and the objects they are made of, may hold in a file: declared once, here.

A fitted attribute that is new takes one line in a table below. Where files of older versions lack it,
the line goes into a group of `Declared.later`, whose attributes are all there or all absent.
Parameters are read off the signatures, and checked by scikit-learn against `_parameter_constraints`; the
table `PARAMETERS` says more of some. `_checks` holds objects to all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from skad._bank import Cover, MemoryBank, check_index
from skad._features import FeatureSpec
from skad._fusion import Member, RobustScale, ScoreFusionDetector, state_of
from skad._images import Geometry
from skad._patchcore import PatchCoreDetector
from skad._reconpatch import ReConPatchDetector
from skad._recontrast import ReContrastDetector
from skad._scoring.calibration import CalibrationLog
from skad._scoring.growing import Growth
from skad.persistence._rules import (
    Rule,
    Table,
    array,
    arrays,
    flag,
    instance,
    integer,
    integers,
    is_bounded,
    nothing,
    number,
    optional,
    several,
    text,
    texts,
)

DETECTORS = (PatchCoreDetector, ReConPatchDetector, ReContrastDetector, ScoreFusionDetector)
IMAGE_DETECTORS = DETECTORS[:3]

# What scikit-learn keeps on a detector, and what is built anew where it is needed.
LEFT_BEHIND = frozenset(
    {
        *("_skl_callbacks", "_parent_callback_ctx", "_scorer", "_sklearn_output_config"),
        "_folder_at_fit",
    }
)


class Relation(NamedTuple):
    """What must hold between attributes."""

    attribute: str
    says: str
    """Ends the sentence "the attribute must ..."."""
    holds: Callable[[SimpleNamespace], Any]
    """Told all attributes; `fit` holds the parameters as they were at fit."""


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

# Beyond what the constraints of the classes say. All others are plain.
PARAMETERS: Mapping[str, Rule] = {
    "backbone": text(),
    "weights": optional(text()),
    "layers": integers(0, 1000),
    "patch_size": SIDE,
    "pretrain_dim": integer(1, 2**20),
    "target_dim": integer(1, 2**20),
    "image_size": SIDE,
    "resize": optional(SIDE),
    "image_shape": optional(integers(1, 2**31)),
    "smoothing": number(0, 1e4),
    "memory": nothing(),
    "random_state": optional(SEED),
    "estimators": several(
        Rule("a pair of a name and a detector", lambda value, _: _is_pair(value)), 1, 999
    ),
}


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
    "calibration_scores_": optional(array("float64", "n_calibration", ascending=True)),
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
}
# Files of version 0.1.0 know no margin for rounding, and the others only if X held rows, or a table.
_LATER: tuple[Table, ...] = (
    {"_margin": number(0)},
    {"n_features_in_": integer(1)},
    {"feature_names_in_": texts()},
)
# For partial_fit.
_GROWTH: Table = {
    "_growth": instance(Growth),
    "coreset_radius_": optional(number(0)),
}
# For a warm start.
_TRAINING: Table = {
    "_resumable": {
        "params": {
            "backbone": text(),
            "pairs": text(),
            "train_encoder": flag(),
            "geometry": text(),
            "image_size": SIDE,
            "resize": optional(SIDE),
        },
        "digest": text(),
        "network": arrays("float32", "int64"),
        "optimizer": arrays("float32"),
        "n_iter": integer(),
        "seed": SEED,
        "curves": several(array("float64", "n_iter"), 2, 2),
    }
}


def _geometry_of(fit: SimpleNamespace) -> Geometry:
    return Geometry(fit.geometry, fit.image_size, fit.resize if fit.geometry == "crop" else None)


def _is_spec_of(spec: FeatureSpec, fit: SimpleNamespace) -> bool:
    return all(
        tuple(value) == tuple(getattr(fit, name))
        if name == "layers"
        else value == getattr(fit, name)
        for name, value in vars(spec).items()
    )


def _knows_index(index: str, bank: MemoryBank) -> bool:
    try:
        check_index(index, bank.vectors.shape[1])
    except ImportError:
        return True  # a search says so
    except ValueError:
        return False
    return True


def _is_cover_of(s: SimpleNamespace) -> Any:
    """Whether a cover is that of the bank; only the greedy rule has one, and always."""
    if not hasattr(s, "_growth"):
        return True
    cover = s._growth.cover
    if s.fit.coreset_method != "greedy":
        return cover is None and s.coreset_radius_ is None
    return (
        cover is not None and cover.net_size <= len(s.bank_) and cover.radius == s.coreset_radius_
    )


def _chose_from(n_patches: int, s: SimpleNamespace) -> bool:
    """Whether the bank was chosen from so many patches of all images."""
    size, n_chosen = s.fit.coreset_size, len(s.bank_)
    per_image, rest = divmod(n_patches, s.n_images_)
    return (
        n_chosen <= n_patches
        and per_image <= s.geometry_.image_size**2
        and (rest == 0 or s.geometry_.mode == "pad")
        and (n_chosen == size if isinstance(size, int) else n_chosen >= int(n_patches * size))
    )


def _ends_now(log: CalibrationLog, s: SimpleNamespace) -> Any:
    """Whether a log is of the images up to now: more than a third of them count, the latest."""
    return (
        log.n_images[-1] == s.n_images_
        and (np.diff(log.n_images) >= 0).all()
        and len(log.peaks) <= s.n_images_ < 3 * len(log.peaks)
        and (s.fit.contamination == "auto" or log.in_sample is not None)
    )


def _is_left_out(log: SimpleNamespace) -> Any:
    """Whether images were scored without their own vectors; the first, if it was alone, cannot be."""
    alone = len(log.n_images) == 1 and log.n_images[0] == 1
    return is_bounded(log.out_of_sample) or (alone and np.isnan(log.out_of_sample).all())


_RELATED_ALL = (
    Relation(
        "calibration_scores_",
        "hold one value per image at most",
        lambda s: s.calibration_scores_ is None or 1 <= len(s.calibration_scores_) <= s.n_images_,
    ),
    Relation(
        "feature_names_in_",
        "hold one name per column",
        lambda s: (
            not hasattr(s, "feature_names_in_")
            or len(s.feature_names_in_) == getattr(s, "n_features_in_", None)
        ),
    ),
)
_RELATED_IMAGES = (
    *_RELATED_ALL,
    Relation(
        "geometry_", "be that of the parameters", lambda s: s.geometry_ == _geometry_of(s.fit)
    ),
)
_RELATED_BANKS = (
    *_RELATED_IMAGES,
    Relation(
        "feature_spec_", "be that of the parameters", lambda s: _is_spec_of(s.feature_spec_, s.fit)
    ),
    Relation("bank_.sources", "be below n_images_", lambda s: s.bank_.sources.max() < s.n_images_),
    Relation(
        "bank_.vectors",
        "be as many as n_neighbors and b ask for",
        lambda s: len(s.bank_) >= max(s.fit.n_neighbors, s.fit.b or 1),
    ),
    Relation(
        "bank_.index",
        "be the index of the parameters, and one that faiss knows",
        lambda s: s.bank_.index == s.fit.index and _knows_index(s.fit.index, s.bank_),
    ),
    Relation(
        "_growth.cover",
        "be that of the bank, as coreset_method asks for, and coreset_radius_ its radius",
        _is_cover_of,
    ),
    Relation(
        "_growth.n_patches",
        "be of n_images_ images, and so many that coreset_size gives the bank",
        lambda s: not hasattr(s, "_growth") or _chose_from(s._growth.n_patches, s),
    ),
    Relation(
        "_growth.log",
        "know a third of the images up to n_images_, with what contamination asks for",
        lambda s: not hasattr(s, "_growth") or _ends_now(s._growth.log, s),
    ),
)
_RELATED_NETWORK = (
    *_RELATED_IMAGES,
    Relation("loss_curve_", "hold n_iter_ values", lambda s: len(s.loss_curve_) == s.n_iter_),
    Relation(
        "validation_indices_",
        "be different numbers of images, ascending",
        lambda s: (
            (np.diff(s.validation_indices_) > 0).all()
            and (s.validation_indices_ < s.n_images_).all()
        ),
    ),
    Relation(
        "network_",
        "have the parts that train_encoder and pairs ask for, with positive variances",
        lambda s: _is_network_of(s.network_, s.fit),
    ),
    Relation(
        "_resumable",
        "be the training of this network",
        lambda s: not hasattr(s, "_resumable") or _goes_on(s._resumable, s),
    ),
)
_RELATED_MEMBERS = (
    *_RELATED_ALL,
    Relation(
        "estimators_",
        "be the members, with a name of its own each",
        lambda s: (
            len(s._names) == len(set(s._names)) == len(s.estimators_) == len(s._members)
            and all(m.detector is d for m, d in zip(s._members, s.estimators_, strict=True))
            and all(hasattr(d, "_params_at_fit") for d in s.estimators_)
        ),
    ),
    Relation(
        "estimators_",
        "be of the images, and the columns, of the ensemble",
        lambda s: all(
            d.n_images_ == s.n_images_
            and getattr(d, "n_features_in_", None) == getattr(s, "n_features_in_", None)
            for d in s.estimators_
        ),
    ),
    Relation(
        "_members_at_fit",
        "be the states of the members",
        lambda s: (
            getattr(s, "_members_at_fit", None) in (None, [state_of(d) for d in s.estimators_])
        ),
    ),
    Relation(
        "_share_grid",
        "be False where the geometries of members differ",
        lambda s: not s._share_grid or len({d.geometry_ for d in s.estimators_}) == 1,
    ),
)


def _is_network_of(network: dict[str, np.ndarray], fit: SimpleNamespace) -> bool:
    parts = {"bottleneck", "decoder"}
    parts |= {"encoder"} if fit.train_encoder else set()
    parts |= {"heads_frozen", "heads_trained"} if fit.pairs == "cross" else set()
    return {name.split(".")[0] for name in network} == parts and all(
        (array >= 0).all() for name, array in network.items() if name.endswith("running_var")
    )


def _goes_on(before: dict[str, Any], s: SimpleNamespace) -> bool:
    """Whether a training can be taken up where this detector's ended."""
    shapes = [
        array.shape
        for name, array in s.network_.items()
        if array.dtype == np.float32 and not name.endswith(_BUFFERS)
    ]
    return (
        _is_network_of(before["network"], s.fit)
        and before["digest"] == s.weights_digest_
        and (before["n_iter"], before["seed"]) == (s.n_iter_, s._seed)
        and len(before["curves"][0]) == s.n_iter_
        and {n: a.shape for n, a in before["network"].items()}
        == {n: a.shape for n, a in s.network_.items()}
        and all(_is_moment(n, a, shapes) for n, a in before["optimizer"].items())
    )


_BUFFERS = ("running_mean", "running_var", "encoder.mean", "encoder.std")


def _is_moment(name: str, moment: np.ndarray, shapes: list[tuple[int, ...]]) -> bool:
    """Whether an entry of the optimiser's state belongs to a parameter of the network."""
    number, _, slot = name.partition(".")
    if not number.isdecimal() or int(number) >= len(shapes):
        return False
    expected = {"step": (), "exp_avg": shapes[int(number)], "exp_avg_sq": shapes[int(number)]}
    return (
        slot in expected
        and moment.shape == expected[slot]
        and (slot == "exp_avg" or bool((moment >= 0).all()))
    )


DECLARED: Mapping[type, Declared] = {
    Geometry: Declared({"mode": text(), "image_size": SIDE, "resize": optional(SIDE)}),
    FeatureSpec: Declared(
        {
            "backbone": text(),
            "layers": several(integer(0, 1000), kinds=(tuple,)),
            "image_size": SIDE,
            "patch_size": SIDE,
            "aggregation": text(),
            "pretrain_dim": integer(1, 2**20),
            "target_dim": integer(1, 2**20),
            "precision": text(),
        }
    ),
    MemoryBank: Declared(
        {
            "vectors": array("float32", "M", "d"),
            "sources": array("int64", "M", low=0),
            "index": text(),
        },
        relations=(
            Relation("vectors", "hold at least one vector of at least one number", lambda s: s.vectors.size),
        ),
    ),
    Cover: Declared({"radius": number(0), "net_size": integer(), "net_scale": number(0)}),
    CalibrationLog: Declared(
        {
            # The first image of all, if it was alone, could not be held out.
            "out_of_sample": array("float64", "n", finite=False),
            "in_sample": optional(array("float64", "n")),
            "peaks": array("float64", "n"),
            "n_images": array("int64", "n", low=1),
        },
        relations=(
            Relation("peaks", "hold at least one value", lambda s: len(s.peaks)),
            Relation("out_of_sample", "be bounded, or NaN of a single image", _is_left_out),
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
    PatchCoreDetector: Declared(_OF_BANKS, (_GROWTH, *_LATER), _RELATED_BANKS),
    ReConPatchDetector: Declared(
        {
            **_OF_BANKS,
            "components_": array("float32", "d", "n_values"),
            "sigma_": number(0),
            "loss_curve_": array("float64", "n_iter", finite=False),
            "n_iter_": integer(),
        },
        (_GROWTH, *_LATER),
        (
            *_RELATED_BANKS,
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
        {
            **_OF_IMAGES,
            "_seed": SEED,
            "network_": arrays("float32", "int64"),
            "loss_curve_": array("float64", "n_iter", finite=False),
            "feature_diversity_": array("float64", "n_iter", finite=False),
            "n_iter_": integer(),
            "validation_indices_": array("int64", "n_left_out", low=0),
        },
        (_TRAINING, *_LATER),
        _RELATED_NETWORK,
    ),
    ScoreFusionDetector: Declared(
        {
            **_OF_ALL,
            "_names": several(text(), 1, 999, kinds=(list,)),
            "estimators_": several(instance(*IMAGE_DETECTORS), 1, 999, kinds=(list,)),
            "_members": several(instance(Member), 1, 999, kinds=(list,)),
            "_share_grid": flag(),
        },
        ({"_members_at_fit": several(several(number(), 3, 3), 1, 999, kinds=(list,))}, *_LATER),
        _RELATED_MEMBERS,
    ),
}
CLASSES = {cls.__name__: cls for cls in DECLARED}
