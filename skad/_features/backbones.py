"""Frozen backbones: any timm model by its pinned name, or a network of the user's own.

A built backbone is kept in one process-wide cache, so that detectors, clones and the candidates of
a grid search share it and a pickled detector never has to carry it.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from skad._features._timm import import_timm
from skad._features.configuration import fingerprint
from skad._features.identity import BackboneIdentity, probe_image
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
from skad._system.forks import LOADING, survive_forks
from skad._torch.convolutions import pin_convolutions
from skad._torch.devices import exact_convolutions
from skad._torch.fusing import fuse_convolutions
from skad._validation.text import shortened

_N_CACHED = 4
# Sides of the images, in pixels, that networks without a description are asked about.
_PROBES = (64, 224)
_RANDOM_WEIGHTS_SEED = 0
# Characters that are shown of what a network says.
_SHOWN = 400

# Everything that is alive, so that what a detector holds is never built again; and the latest, which
# stay alive by themselves.
_alive: WeakValueDictionary[tuple, FeatureNet] = WeakValueDictionary()
_latest: OrderedDict[tuple, FeatureNet] = OrderedDict()
# Files of pretrained weights and what they held, by the name of their network.
_found: dict[str, Path] = {}
_contents: dict[str, str] = {}
# Networks that can be told apart by nothing but themselves.
_singletons: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_numbers = count()


class NoFeatureMapsError(ValueError):
    """A network answers something else than feature maps."""


class FeatureNet(nn.Module):
    """A frozen network that maps pixels to its hierarchy layers.

    Parameters
    ----------
    body : torch.nn.Module
        Maps normalised (B, 3, S, S) images to a sequence of feature maps, shallow to deep.
    mean, std : sequence of 3 floats
        Normalisation of RGB values in 0..1.
    channels : sequence of int or None
        Channels of each map, where known; networks that answer channels last are recognised by it.
    strides : sequence of int or None
        Pixels of the image per cell of each map, where known.
    fuse : bool, default=False
        Fuse convolutions with what follows them. What is fused cannot be trained, and its weights are
        not those of the file.
    configuration : str or None
        Digest of what a network of the user's own is made of. None: its weights alone tell it.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        body: nn.Module,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        channels: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        fuse: bool = False,
        configuration: str | None = None,
    ) -> None:
        super().__init__()
        self.configuration = configuration
        self.channels = channels
        self.strides = strides
        self.digest = weights_digest(body)
        self.shared: dict[object, Any] = {}  # what others derive from this network, built once
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))
        body.eval()
        _freeze(body)
        self.body = fuse_convolutions(body) if fuse else body
        pin_convolutions(self.body)
        _freeze(self)
        self.eval()

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of a batch.

        Parameters
        ----------
        pixels : torch.Tensor of shape (B, S, S, 3)
            uint8 0..255 or float32 0..1, RGB.

        Returns
        -------
        list of torch.Tensor of shape (B, C_j, h_j, w_j)
        """
        maps = _maps(self.body, pixels, self.mean, self.std)
        return [self._channels_first(layer, j) for j, layer in enumerate(maps)]

    def identity(self, size: int) -> BackboneIdentity | None:
        """Take down what a network of the user's own is recognised by, beside its weights.

        Parameters
        ----------
        size : int
            Side of the images that it is asked about, in pixels.

        Returns
        -------
        BackboneIdentity or None
            None for a model of timm's.

        Raises
        ------
        ValueError
            If it cannot take such images, or answers one image in two ways.
        """
        if self.configuration is None:
            return None
        with LOADING:
            if ("identity", size) not in self.shared:
                first, second = (self._answered(self.configuration, size) for _ in range(2))
                if first.difference(second):
                    raise ValueError(
                        "the backbone answers one image in two ways: what it does must not be random, "
                        "nor depend on what it did before."
                    )
                self.shared["identity", size] = first
            return self.shared["identity", size]

    def _answered(self, configuration: str, size: int) -> BackboneIdentity:
        with _asking(size, self.mean.device) as image:
            return BackboneIdentity.of(configuration, self(image))

    def is_up_to_date(self, network: nn.Module, size: int) -> bool:
        """Whether a network of the user's own still answers as when it was built into this one.

        What it reads from outside (variables of the environment, files, libraries) may have changed,
        without anything of itself.

        Parameters
        ----------
        network : torch.nn.Module
            As the user has it.
        size : int
            Side of the images that it is asked about, in pixels.
        """
        noted = self.identity(size)
        if noted is None:
            return True
        # It is asked without leaving a trace in it; large weights are not copied for that.
        asked = _copied(network, shared=network.parameters()).eval()
        colours = [colour.to(_device_of(network)) for colour in (self.mean, self.std)]
        with _asking(size, colours[0].device) as image:
            answer = _maps(asked, image, *colours)
        return noted.difference(BackboneIdentity.of(noted.configuration, answer)) is None

    def trainable_copy(self) -> FeatureNet:
        """Copy the network for training; the original stays frozen."""
        copied = FeatureNet(
            copy.deepcopy(self.body),
            self.mean.flatten().tolist(),
            self.std.flatten().tolist(),
            self.channels,
            self.strides,
        )
        return copied.requires_grad_(True)

    def _channels_first(self, layer: torch.Tensor, j: int) -> torch.Tensor:
        if self.channels is None or layer.shape[1] == self.channels[j]:
            return layer
        return layer.permute(0, 3, 1, 2)


def load_backbone(
    backbone: str | nn.Module,
    weights: str | os.PathLike[str] | None,
    layers: Sequence[int],
    device: torch.device,
    fuse: bool = False,
    image_size: int | None = None,
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
        Hierarchy layers, shallow to deep (timm's ``out_indices``). Ignored for a network of the
        user's own.
    device : torch.device
    fuse : bool, default=False
        As for :class:`FeatureNet`: faster, and for looking only.
    image_size : int or None, default=None
        Side of the images, in pixels, that a network of the user's own is asked about: what answers
        otherwise than before is built anew. None: it is not asked.

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
    survive_forks()
    own = isinstance(backbone, nn.Module)
    # Two threads that miss the cache together must not build twice, and the random initialisation
    # borrows torch's global generator.
    with LOADING:
        while True:
            content = _content_of_network(backbone) if own else _content_of_name(backbone, weights)
            key = (fuse, str(device), content, () if own else tuple(layers))
            net = _alive.get(key)
            if net is None or _is_outdated(net, backbone, image_size):
                net = _build(backbone, weights, tuple(layers), fuse).to(device)
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
                maps = FeatureNet(_copied(network))(probe_image(size).to(_device_of(network)))
        except (
            Exception
        ):  # whatever a network of the user's own may do with an image of another size
            continue
        return hashlib.blake2b(b"".join(layer.cpu().numpy().tobytes() for layer in maps)).digest()
    return _singletons.setdefault(network, next(_numbers))


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters(), torch.empty(0)).device


def _is_outdated(net: FeatureNet, backbone: Any, image_size: int | None) -> bool:
    if not isinstance(backbone, nn.Module) or image_size is None:
        return False
    return not net.is_up_to_date(backbone, image_size)


def _copied(network: nn.Module, shared: Iterable[torch.Tensor] = ()) -> nn.Module:
    """Copy a network of the user's own, all but tensors that are shared."""
    try:
        return copy.deepcopy(network, {id(tensor): tensor for tensor in shared})
    except Exception as error:  # whatever the parts of a network raise
        raise ValueError(
            f"the backbone cannot be copied, which is done before it is used ({_said(error)}): take out "
            "of it what copy.deepcopy refuses, such as locks, open files and tensors computed from "
            "parameters (torch.nn.utils.weight_norm; the one of parametrizations can be copied)."
        ) from error


def _freeze(network: nn.Module) -> None:
    # Compiled networks have no `requires_grad_`, and copies of them parameters that are computed.
    for parameter in network.parameters():
        parameter.detach_()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {shortened(' '.join(str(error).split()), _SHOWN)}"


def _maps(
    body: nn.Module, pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor
) -> list[torch.Tensor]:
    # Colours last in memory, as they come.
    return _listed(body(_normalised(pixels, mean, std).permute(0, 3, 1, 2)))


def _normalised(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Subtract the mean, divide by the deviation; by rows, since three colours fill no register."""
    rows = pixels.flatten(2)
    rows = rows.float().div_(255) if pixels.dtype == torch.uint8 else rows.clone()
    means, deviations = (colour.flatten().repeat(pixels.shape[2]) for colour in (mean, std))
    return rows.sub_(means).div_(deviations).view(pixels.shape)


@contextmanager
def _asking(size: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Hand out the image by whose answers networks are compared."""
    with torch.inference_mode(), exact_convolutions(device), naming_the_size(size):
        yield probe_image(size).to(device)


def _listed(maps: Any) -> list[torch.Tensor]:
    if isinstance(maps, torch.Tensor):
        raise NoFeatureMapsError(
            f"the backbone returned one tensor of shape {tuple(maps.shape)}; it must return a list of "
            "feature maps, shallow to deep: [x] instead of x."
        )
    listed = list(maps.values()) if isinstance(maps, dict) else maps
    if not isinstance(listed, list | tuple) or not all(torch.is_tensor(x) for x in listed):
        raise NoFeatureMapsError(
            f"the backbone returned {_kind_of(maps)}; it must return a list of feature maps, shallow "
            "to deep."
        )
    if not listed or any(layer.ndim != 4 or not layer.numel() for layer in listed):
        raise NoFeatureMapsError(
            "the backbone must return feature maps of shape (batch, channels, height, width), none of "
            "them empty, shallow to deep; it returned "
            f"{shortened(str([tuple(layer.shape) for layer in listed]))}."
        )
    if any(layer.is_complex() for layer in listed):
        raise NoFeatureMapsError(
            "the backbone returned complex feature maps, which no distance is made for; return real "
            "ones, e.g. torch.view_as_real or abs of them."
        )
    return list(listed)


def _kind_of(maps: Any) -> str:
    if not isinstance(maps, list | tuple):
        return "None" if maps is None else f"a {type(maps).__name__}"
    return f"a {type(maps).__name__} of {', '.join(sorted({type(x).__name__ for x in maps}))}"


@contextmanager
def naming_the_size(size: int) -> Iterator[None]:
    """Say of whatever a network raises that it cannot take images of this size."""
    try:
        yield
    except (torch.cuda.OutOfMemoryError, MemoryError, NoFeatureMapsError):
        raise
    except Exception as error:  # networks raise what they like
        raise ValueError(
            f"the backbone cannot take images of {size} x {size} pixels: {_said(error)}"
        ) from error


def _build(backbone: Any, weights: Any, layers: tuple[int, ...], fuse: bool) -> FeatureNet:
    if isinstance(backbone, nn.Module):
        _check_has_weights(backbone)
        configuration, _ = fingerprint(backbone, exact=False)
        return FeatureNet(_copied(backbone), fuse=fuse, configuration=configuration)
    _check_name(backbone)
    # The file is found before the network is built: its absence is the commoner error.
    file = _pretrained_file(backbone) if weights == "pretrained" else weights
    config = _pretrained_config(backbone)
    model = _create(backbone, layers)
    if file is not None:
        # Networks that timm wraps whole (transformers, skad_nano) hold their tensors one layer down.
        network = getattr(model, "model", model)
        load_weights(network, read_state_dict(file), f"weights={quoted(file)}")
    return FeatureNet(
        model,
        mean=config.get("mean", IMAGENET_MEAN),
        std=config.get("std", IMAGENET_STD),
        channels=model.feature_info.channels(),
        strides=model.feature_info.reduction(),
        fuse=fuse,
    )


def _check_has_weights(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if any(map(is_lazy, (*module.parameters(False), *module.buffers(False)))):
            raise ValueError(
                f"layer {name!r} of the backbone has no weights yet ({type(module).__name__}): pass an "
                "image through the network before it is used, so that they are made."
            )


def _create(name: str, layers: tuple[int, ...]) -> Any:
    timm = import_timm()
    if list(layers) != sorted(set(layers)) or not layers or min(layers) < 0:
        raise ValueError(
            f"layers={shortened(repr(layers))} must be distinct, non-negative and go from shallow to "
            "deep, e.g. (2, 3): the first layer fixes the patch grid."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_RANDOM_WEIGHTS_SEED)
        try:
            return timm.create_model(name, features_only=True, out_indices=layers)
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
    architecture = name.split(".")[0]
    similar = difflib.get_close_matches(shortened(architecture), timm.list_models(), n=3)
    hint = f" Did you mean {', '.join(map(repr, similar))}?" if similar else ""
    raise ValueError(f"backbone={shortened(name)!r} is not a model that timm knows.{hint}")


def _pretrained_config(name: str) -> dict[str, Any]:
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
        _check_name(name)
        bundled = _pretrained_config(name).get("file")
        _found[name] = Path(bundled) if bundled else hub_file(_hub_id(name))
    return _found[name]


def _hub_id(name: str) -> str:
    timm = import_timm()
    if "." not in name:
        tagged = timm.list_pretrained(f"{name}.*")
        raise ValueError(
            f"backbone={name!r} with weights='pretrained' needs its tag, because timm changes which "
            f"weights an untagged name stands for. Write one of: {', '.join(tagged) or 'none known'}."
        )
    hub_id = _pretrained_config(name).get("hf_hub_id")
    if not hub_id:
        raise ValueError(
            f"timm knows no pretrained weights for backbone={name!r}; "
            f"pass a file with weights=, or one of {timm.list_pretrained(name.split('.')[0] + '*')}."
        )
    return hub_id if "/" in hub_id and not hub_id.endswith("/") else f"timm/{name}"
