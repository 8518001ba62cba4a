"""Frozen backbones: any timm model by its pinned name, or a network of the user's own.

A built backbone is kept in one process-wide cache, so that detectors, clones and the candidates of
a grid search share it and a pickled detector never has to carry it.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from skad._common.forks import LOADING, survive_forks
from skad._common.text import shortened
from skad._features._timm import import_timm
from skad._features.configuration import fingerprint
from skad._features.feature_net import FeatureNet, copied, device_of, freeze
from skad._features.identity import probe_image
from skad._features.lite import NETWORKS, PACKAGES, named_as_in_timm, packaged_file
from skad._features.weight_files import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MissingWeightsError,
    content_of,
    hub_file,
    load_weights,
    quoted,
    read_state_dict,
    weights_digest,
)
from skad._images import Size, height_and_width
from skad._torch.accelerators import fused
from skad._torch.devices import is_plain_mode

_N_CACHED = 4
# Sides of the images, in pixels, that networks without a description are asked about.
_PROBES = (64, 224)
_RANDOM_WEIGHTS_SEED = 0

# Everything that is alive, so that what a detector holds is never built again; and the latest, which
# stay alive by themselves.
_alive: WeakValueDictionary[tuple, FeatureNet] = WeakValueDictionary()
_latest: OrderedDict[tuple, FeatureNet] = OrderedDict()
# Files of pretrained weights and what they held, by the name of their network.
_found: dict[str, Path] = {}
_contents: dict[str, str] = {}
# Names of networks whose weights come with skad.
_bundled: set[str] = set()
# How timm is asked for the layers of a network.
_FEATURES_ONLY: Mapping[str, Any] = {"features_only": True}
# Networks that can be told apart by nothing but themselves.
_singletons: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_numbers = count()


def load_backbone(
    backbone: str | nn.Module,
    weights: str | os.PathLike[str] | None,
    layers: Sequence[int],
    device: torch.device,
    fuse: bool = False,
    image_size: Size | None = None,
    final_norm: bool = False,
) -> FeatureNet:
    """Return the frozen backbone, built once in this process.

    Parameters
    ----------
    backbone : str or torch.nn.Module
        A name of timm's, with its tag when ``weights="pretrained"``; or a network whose forward
        pass returns the feature maps to use, shallow to deep.
    weights : "pretrained", path-like or None
        Ignored for a network of the user's own. None: random weights, always the same ones.
    layers : sequence of int
        Shallow to deep (timm's ``out_indices``). Ignored for a network of the
        user's own.
    device : torch.device
    fuse : bool, default=False
        Fuse convolutions with what follows them: faster. What is fused cannot be trained, and its
        weights are not those of the file.
    image_size : int, tuple of two ints or None, default=None
        Of the images, in pixels. A model of timm's that is made for one size is made for this one; a
        network of the user's own is asked about such an image, and built anew if it answers otherwise
        than before. None: the size that timm's model is made for.
    final_norm : bool, default=False
        Apply the network's final norm to all layers: for transformers of timm's, which have one.

    Returns
    -------
    FeatureNet
        Shared: do not change it.

    Raises
    ------
    ValueError
        Unknown name, untagged pretrained name, layer out of range, weights of another network; a
        network that cannot be used.
    MissingWeightsError
        Weights that cannot be had.
    """
    if isinstance(backbone, str):
        backbone = NETWORKS.get(backbone, backbone)
    own, fuse = isinstance(backbone, nn.Module), fuse and not is_plain_mode()
    size = None if own else _other_size(backbone, image_size)
    # Two threads that miss the cache together must not build twice, and the random initialisation
    # borrows torch's global generator.
    with LOADING:
        while True:
            content = _content_of_network(backbone) if own else _content_of_name(backbone, weights)
            key = (fuse, str(device), content, () if own else tuple(layers), size, final_norm)
            net = _alive.get(key)
            if net is not None and not (own and _is_outdated(net, backbone, image_size)):
                break
            survive_forks()
            net = _build(backbone, weights, tuple(layers), fuse, size, final_norm).to(device)
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            # A file that was replaced while it was read is read again.
            if own or content == _content_of_name(backbone, weights):
                break
        _alive[key] = _latest[key] = net
        _latest.move_to_end(key)
        while len(_latest) > _N_CACHED:
            _latest.popitem(last=False)
        return net


def _content_of_name(name: Any, weights: Any) -> tuple[object, ...]:
    if weights is None:
        return (name, None)
    if weights != "pretrained":
        return (name, content_of(weights))
    if name in _bundled:
        return (name, "bundled")  # nobody replaces the files of the package that runs
    try:
        _contents[name] = content_of(_pretrained_file(name))
    except MissingWeightsError:
        # What was cleared away since is still in memory while a detector needs it.
        if name not in _contents:
            raise
    return (name, _contents[name])


def _content_of_network(network: Any) -> tuple[object, ...]:
    digest, complete = fingerprint(network, exact=True)
    return (digest,) if complete else (digest, _answers(network))


def _answers(network: nn.Module) -> object:
    """Tell networks apart that cannot be described; copies of one answer alike, bit by bit."""
    for size in _PROBES:
        try:
            with torch.inference_mode():
                maps = FeatureNet(copied(network))(probe_image(size).to(device_of(network)))
        except (
            Exception
        ):  # whatever a network of the user's own may do with an image of another size
            continue
        return hashlib.blake2b(b"".join(layer.cpu().numpy().tobytes() for layer in maps)).digest()
    return _singletons.setdefault(network, next(_numbers))


def _is_outdated(net: FeatureNet, backbone: Any, image_size: Size | None) -> bool:
    return image_size is not None and not net.is_up_to_date(backbone, image_size)


def _other_size(name: Any, size: Size | None) -> tuple[int, int] | None:
    """Return a size that a model is not made for, if it is made for one alone."""
    if size is None:
        return None
    config = pretrained_config(name)
    wanted = height_and_width(size)
    is_other = config.get("fixed_input_size") and wanted != tuple(config["input_size"][1:])
    return wanted if is_other else None


def _build(
    backbone: Any,
    weights: Any,
    layers: tuple[int, ...],
    fuse: bool,
    size: tuple[int, int] | None = None,
    final_norm: bool = False,
) -> FeatureNet:
    if isinstance(backbone, nn.Module):
        _check_has_weights(backbone)
        configuration, _ = fingerprint(backbone, exact=False)
        return _frozen(copied(backbone), fuse, configuration=configuration)
    _check_name(backbone)
    # The file is found before the network is built: its absence is the commoner error.
    file = _pretrained_file(backbone) if weights == "pretrained" else weights
    config = pretrained_config(backbone)
    options = {**_FEATURES_ONLY, **({"feature_cls": _normed()} if final_norm else {})}
    model = _create(backbone, layers, options)
    if file is not None:
        # Networks that timm wraps whole (transformers, skad_nano) hold their tensors one layer down.
        network = getattr(model, "model", model)
        tensors = read_state_dict(file)
        if backbone in PACKAGES and "conv_stem.weight" not in tensors:
            tensors = named_as_in_timm(tensors, backbone, file)
        load_weights(network, tensors, f"weights={quoted(file)}")
    digest = weights_digest(model)
    if size is not None:
        model = _resized(model, backbone, layers, size, options)
    return _frozen(
        model,
        fuse,
        digest=digest,
        mean=config.get("mean", IMAGENET_MEAN),
        std=config.get("std", IMAGENET_STD),
        channels=model.feature_info.channels(),
        strides=model.feature_info.reduction(),
        channels_last=getattr(model, "output_fmt", None) == "NHWC",
    )


def _frozen(
    body: nn.Module, fuse: bool, digest: str | None = None, **description: Any
) -> FeatureNet:
    """Freeze a network, which is fused after its weights have been recognised."""
    freeze(body.eval())
    digest = weights_digest(body) if digest is None else digest
    return FeatureNet(fused(body) if fuse else body, digest=digest, **description)


@cache
def _normed() -> type:
    """Return what timm wraps a transformer in, with its final norm."""
    getter = import_timm().models._features.FeatureGetterNet

    class Normed(getter):  # type: ignore[misc, valid-type]
        def __init__(self, model: nn.Module, **options: Any) -> None:
            super().__init__(model, norm=True, **options)

    return Normed


def _resized(
    model: Any, name: str, layers: tuple[int, ...], size: tuple[int, int], options: dict[str, Any]
) -> Any:
    """Make a network with the weights of another for images of another size.

    Transformers hold a vector per position: timm interpolates these in every pass, or once.
    """
    timm, height, width = import_timm(), *size
    for option in ({"dynamic_img_size": True}, {"img_size": size}):
        try:
            with torch.random.fork_rng(devices=[]):
                other = timm.create_model(name, out_indices=layers, **options, **option)
            network = getattr(other, "model", other)
            state = getattr(model, "model", model).state_dict()
            network.load_state_dict(_interpolated(state, network))
            return other
        except TypeError:  # it does not know the option
            continue
        except (AssertionError, RuntimeError, ValueError) as error:
            native = pretrained_config(name)["input_size"][1:]
            raise ValueError(
                f"backbone={name!r} is made for images of {native[0]} x {native[1]} pixels, and cannot "
                f'be brought to {height} x {width}: {shortened(str(error))} Set image_size="auto".'
            ) from error
    return model


def _interpolated(state: dict[str, torch.Tensor], network: Any) -> dict[str, torch.Tensor]:
    """Bring weights that belong to positions to those of a network, as timm does for its own files."""
    needed = {key: value.shape for key, value in network.state_dict().items()}
    if any(needed.get(key) != value.shape for key, value in state.items()):
        module = sys.modules[type(network).__module__]
        state = getattr(module, "checkpoint_filter_fn", lambda state, _: state)(state, network)
    grid, key = getattr(network, "tokens_spatial_shape", None), "pos_embed"
    if grid is not None and key in needed and state[key].shape != needed[key]:
        # Hiera, whose own function does not.
        resample = import_timm().layers.resample_abs_pos_embed
        state = {**state, key: resample(state[key], list(grid), num_prefix_tokens=0)}
    return state


def _check_has_weights(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if any(map(is_lazy, (*module.parameters(False), *module.buffers(False)))):
            raise ValueError(
                f"layer {name!r} of the backbone has no weights yet ({type(module).__name__}): pass an "
                "image through the network before it is used, so that they are made."
            )


def _create(name: str, layers: tuple[int, ...], options: Mapping[str, Any] = _FEATURES_ONLY) -> Any:
    timm = import_timm()
    if list(layers) != sorted(set(layers)) or not layers or min(layers) < 0:
        raise ValueError(
            f"layers={shortened(repr(layers))} must be distinct, non-negative and go from shallow to "
            "deep, e.g. (2, 3): the first layer fixes the patch grid."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_RANDOM_WEIGHTS_SEED)
        try:
            return timm.create_model(name, out_indices=layers, **options)
        except (IndexError, AssertionError, ValueError) as error:
            last = max(timm.create_model(name, features_only=True).feature_info.out_indices)
            raise ValueError(
                f"layers={shortened(repr(layers))} do not all exist in {name!r}: its last layer is "
                f"{last}."
            ) from error


def _check_name(name: str) -> None:
    timm = import_timm()
    if timm.is_model(name):
        return
    if name == "precomputed":
        raise ValueError(
            'backbone="precomputed" takes features in place of images: it is for PatchCoreDetector and '
            "ReConPatchDetector alone, and there is no network."
        )
    architecture = name.split(".")[0]
    similar = difflib.get_close_matches(shortened(architecture), timm.list_models(), n=3)
    hint = f" Did you mean {', '.join(map(repr, similar))}?" if similar else ""
    raise ValueError(f"backbone={shortened(name)!r} is not a model that timm knows.{hint}")


@lru_cache(maxsize=64)  # every prediction asks, and timm takes as long as some layers
def pretrained_config(name: str) -> Mapping[str, Any]:
    """Return what timm says about a network and its weights.

    Parameters
    ----------
    name : str

    Returns
    -------
    Mapping
        Shared: not to be changed.

    Raises
    ------
    ValueError
        If timm does not know the name, or its tag.
    """
    _check_name(name)
    try:
        config = import_timm().models.get_pretrained_cfg(name)
    except RuntimeError as error:  # a tag that does not exist
        tagged = import_timm().list_pretrained(f"{name.split('.')[0]}.*")
        raise ValueError(
            f"backbone={shortened(name)!r}: {shortened(str(error))} Its tags: {', '.join(tagged)}."
        ) from error
    return config.to_dict() if config is not None else {}


def _pretrained_file(name: str) -> Path:
    if name not in _found or not _found[name].is_file():
        bundled = pretrained_config(name).get("file")
        if bundled:
            _found[name] = Path(bundled)
            _bundled.add(name)
        else:
            _found[name] = _downloaded(name)
    return _found[name]


def _downloaded(name: str) -> Path:
    if name in PACKAGES:
        return packaged_file(name)
    return hub_file(_hub_id(name), pretrained_config(name).get("license"))


def _hub_id(name: str) -> str:
    timm = import_timm()
    if "." not in name:
        tagged = timm.list_pretrained(f"{name}.*")
        raise ValueError(
            f"backbone={name!r} with weights='pretrained' needs its tag, because timm changes which "
            f"weights an untagged name stands for. Write one of: {', '.join(tagged) or 'none known'}."
        )
    hub_id = pretrained_config(name).get("hf_hub_id")
    if not hub_id:
        raise ValueError(
            f"timm knows no pretrained weights for backbone={name!r}; "
            f"pass a file with weights=, or one of {timm.list_pretrained(name.split('.')[0] + '*')}."
        )
    return hub_id if "/" in hub_id and not hub_id.endswith("/") else f"timm/{name}"
