"""What must hold between the attributes of a detector, beyond what each may be by itself."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from skad._bank import MemoryBank, bank_size, check_index
from skad._features import FeatureSpec
from skad._fusion import state_of
from skad._images import Geometry, Size, as_size, as_tiles
from skad._scoring.calibration import CalibrationLog
from skad.persistence._rules import is_bounded


class Relation(NamedTuple):
    """What must hold between attributes."""

    attribute: str
    says: str
    """Ends the sentence "the attribute must ..."."""
    holds: Callable[[SimpleNamespace], Any]
    """Told all attributes; `fit` holds the parameters as they were at fit."""


def _geometry_of(s: SimpleNamespace) -> Geometry:
    # What "auto" stands for may change: the size is the one of the fit.
    is_auto = isinstance(s.fit.image_size, str)
    size = _input_size(s) if is_auto else as_size(s.fit.image_size)
    tiling = getattr(s, "tiling_", None)
    if tiling is not None and tiling.rows is None:
        return Geometry("native", size, tiling=tiling)
    if tiling is not None:
        size = as_size(tiling.canvas)
    return Geometry(s.fit.geometry, size, s.fit.resize if s.fit.geometry == "crop" else None)


def _input_size(s: SimpleNamespace) -> Size:
    """Size of what the network sees: of a tile, where there are tiles."""
    tiling = getattr(s, "tiling_", None)
    return s.geometry_.image_size if tiling is None else tiling.tile


def _has_tiles_of(s: SimpleNamespace) -> bool:
    """Whether there are tiles where the parameters ask for some, and as many."""
    tiles, tiling = as_tiles(getattr(s.fit, "tiles", None)), getattr(s, "tiling_", None)
    if tiles is None or tiling is None:
        return tiles is tiling
    size, counts = s.fit.image_size, (None, None) if isinstance(tiles, str) else tiles
    return counts == (tiling.rows, tiling.columns) and (
        isinstance(size, str) or as_size(size) == tiling.tile
    )


def _is_spec_of(spec: FeatureSpec, s: SimpleNamespace) -> bool:
    # What "auto" stands for may change: it is the one of the fit.
    params = {
        name: getattr(spec, name) if getattr(s.fit, name) == "auto" else getattr(s.fit, name)
        for name in vars(spec)
        if name not in ("layers", "image_size") and hasattr(s.fit, name)
    }
    # What is no parameter of a pyramid.
    params = {"patch_size": 1, "aggregation": "concat", "pretrain_dim": 1024} | params
    params = {"target_dim": 1024, "normalize": False} | params
    layers = spec.layers
    if hasattr(s.fit, "image_layer"):
        layers = tuple(sorted({*s.layers_, s.image_layer_}))
    elif not isinstance(s.fit.layers, str):  # of precomputed features, shapes
        layers = tuple(tuple(n) if isinstance(n, list) else n for n in s.fit.layers)
    return spec == FeatureSpec(**params, layers=layers, image_size=_input_size(s))


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
    per_image, rest = divmod(n_patches, s.n_images_ - len(s.trimmed_indices_))
    return (
        n_chosen <= n_patches
        and (s.geometry_.mode == "native" or per_image <= np.prod(s.geometry_.canvas))
        and (rest == 0 or s.geometry_.mode in ("pad", "native"))
        and (n_chosen == size if isinstance(size, int) else n_chosen >= bank_size(n_patches, size))
    )


def _ends_now(log: CalibrationLog, s: SimpleNamespace) -> Any:
    """Whether a log is of the images up to now, or was measured on fresh ones since."""
    return (
        log.n_images[-1] == s.n_images_
        and (np.diff(log.n_images) >= 0).all()
        and (s.fit.contamination == "auto" or log.in_sample is not None)
        and np.count_nonzero(np.isnan(log.out_of_sample))
        <= max(_n_unknown(log), len(s.trimmed_indices_))
    )


def _n_unknown(log: Any) -> int:
    """How many images of a log cannot have been held out: one that was alone."""
    return int(len(log.n_images) == 1 and log.n_images[0] == 1)


def is_left_out(log: SimpleNamespace) -> Any:
    """Whether images were scored by others; NaN: those trimmed, and the first, if it was alone."""
    counting = log.out_of_sample[~np.isnan(log.out_of_sample)]
    return is_bounded(counting) and (len(counting) > 0 or _n_unknown(log))


RELATED_ALL = (
    Relation(
        "calibration_scores_",
        "hold at least one value",
        lambda s: s.calibration_scores_ is None or len(s.calibration_scores_),
    ),
    Relation(
        "training_scores_",
        "hold one value per image",
        lambda s: len(s.training_scores_) == s.n_images_,
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
RELATED_IMAGES = (
    *RELATED_ALL,
    Relation("tiling_", "be that of the parameters", _has_tiles_of),
    Relation("geometry_", "be that of the parameters", lambda s: s.geometry_ == _geometry_of(s)),
)
_OF_SPEC = Relation(
    "feature_spec_", "be that of the parameters", lambda s: _is_spec_of(s.feature_spec_, s)
)
RELATED_BANKS = (
    *RELATED_IMAGES,
    _OF_SPEC,
    Relation("bank_.sources", "be below n_images_", lambda s: s.bank_.sources.max() < s.n_images_),
    Relation(
        "trimmed_indices_",
        "be distinct images without vectors in the bank",
        lambda s: (
            len(np.unique(s.trimmed_indices_)) == len(s.trimmed_indices_)
            and (s.trimmed_indices_ < s.n_images_).all()
            and not np.isin(s.trimmed_indices_, s.bank_.sources).any()
        ),
    ),
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
RELATED_GAUSSIANS = (
    *RELATED_IMAGES,
    _OF_SPEC,
    Relation(
        "channels_",
        "be different ones, as many as n_features asks for",
        lambda s: (
            (np.diff(s.channels_) > 0).all() and s.fit.n_features in ("auto", len(s.channels_))
        ),
    ),
    Relation(
        "factors_",
        "have rows for the channels of each layer, deeper layers' first, as means_ has values",
        lambda s: _are_gaussians(s.means_, s.factors_, len(s.channels_)),
    ),
)
RELATED_PLACES = (
    *RELATED_IMAGES,
    _OF_SPEC,
    Relation(
        "layers_",
        "be those of layers, and image_layer_ that of image_layer",
        lambda s: (
            (isinstance(s.fit.layers, str) or tuple(s.fit.layers) == tuple(s.layers_))
            and s.fit.image_layer in ("auto", s.image_layer_)
        ),
    ),
    Relation(
        "descriptors_",
        "be of n_images_ images, at least as many as k, each with kappa places that count",
        lambda s: (
            len(s.descriptors_) == s.n_images_ >= s.fit.k
            and (s.counting_.sum(axis=(1, 2)) >= s.fit.kappa).all()
        ),
    ),
)
RELATED_NETWORK = (
    *RELATED_IMAGES,
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
        "have the parts that the parameters ask for, with positive variances",
        lambda s: _is_network_of(s.network_, s.fit),
    ),
    Relation(
        "_resumable",
        "be the training of this network",
        lambda s: not hasattr(s, "_resumable") or _goes_on(s._resumable, s),
    ),
)
RELATED_MEMBERS = (
    *RELATED_ALL,
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


def _are_gaussians(means: list[np.ndarray], factors: list[np.ndarray], n_channels: int) -> bool:
    lengths = np.cumsum([mean.shape[1] for mean in reversed(means)])[::-1].tolist()
    return lengths[0] == n_channels and [one.shape for one in factors] == [
        (*mean.shape, length) for mean, length in zip(means, lengths, strict=True)
    ]


def _is_network_of(network: dict[str, np.ndarray], fit: SimpleNamespace) -> bool:
    parts = {"bottleneck", "decoder"}
    parts |= {"encoder"} if getattr(fit, "train_encoder", False) else set()
    parts |= {"heads_frozen", "heads_trained"} if getattr(fit, "pairs", None) == "cross" else set()
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
    moments = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    expected = {"step": (), **dict.fromkeys(moments, shapes[int(number)])}
    return (
        slot in expected
        and moment.shape == expected[slot]
        and (slot == "exp_avg" or bool((moment >= 0).all()))
    )
