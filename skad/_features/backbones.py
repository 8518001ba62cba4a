"""Frozen backbones: any timm model by its pinned name, or a network of the user's own.

A built backbone is kept in one process-wide cache, so that detectors, clones and the candidates of
a grid search share it and a pickled detector never has to carry it.
"""

from __future__ import annotations

import copy
import difflib
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from skad._convolutions import pin_convolutions
from skad._features._timm import import_timm
from skad._features.fusing import fuse_convolutions
from skad._features.weight_files import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MissingWeightsError,
    hub_file,
    load_weights,
    read_state_dict,
    weights_digest,
)
from skad._forks import LOADING, survive_forks

_N_CACHED = 4
_RANDOM_WEIGHTS_SEED = 0

_cache: OrderedDict[tuple, FeatureNet] = OrderedDict()
_digests: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


class FeatureNet(nn.Module):
    """A frozen network that maps pixels to its hierarchy levels.

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
    ) -> None:
        super().__init__()
        self.channels = channels
        self.strides = strides
        self.digest = weights_digest(body)
        self.shared: dict[object, Any] = {}  # what others derive from this network, built once
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))
        body.requires_grad_(False).eval()
        self.body = fuse_convolutions(body) if fuse else body
        pin_convolutions(self.body)
        self.requires_grad_(False)
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
        # Colours last in memory, as they come.
        maps = self.body(self._normalised(pixels).permute(0, 3, 1, 2))
        maps = list(maps.values()) if isinstance(maps, dict) else list(maps)
        return [self._channels_first(level, j) for j, level in enumerate(maps)]

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Subtract the mean, divide by the deviation; by rows, since three colours fill no register."""
        rows = pixels.flatten(2)
        rows = rows.float().div_(255) if pixels.dtype == torch.uint8 else rows.clone()
        mean, std = (colour.flatten().repeat(pixels.shape[2]) for colour in (self.mean, self.std))
        return rows.sub_(mean).div_(std).view(pixels.shape)

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

    def _channels_first(self, level: torch.Tensor, j: int) -> torch.Tensor:
        if self.channels is None or level.shape[1] == self.channels[j]:
            return level
        return level.permute(0, 3, 1, 2)


def load_backbone(
    backbone: str | nn.Module,
    weights: str | os.PathLike[str] | None,
    levels: Sequence[int],
    device: torch.device,
    fuse: bool = False,
) -> FeatureNet:
    """Return the frozen backbone, built once in this process.

    Parameters
    ----------
    backbone : str or torch.nn.Module
        A name of timm's, with its tag when ``weights="pretrained"``; or a network whose forward
        pass returns the feature maps to use, shallow to deep.
    weights : "pretrained", path-like or None
        Ignored for a network of the user's own. None: random weights, always the same ones.
    levels : sequence of int
        Hierarchy levels, shallow to deep (timm's ``out_indices``). Ignored for a network of the
        user's own.
    device : torch.device
    fuse : bool, default=False
        As for :class:`FeatureNet`: faster, and for looking only.

    Returns
    -------
    FeatureNet
        Shared: do not change it.

    Raises
    ------
    ValueError
        Unknown name, untagged pretrained name, level out of range, weights of another network.
    MissingWeightsError
        Weights that cannot be had.
    """
    survive_forks()
    key = (fuse, *_cache_key(backbone, weights, levels, device))
    # Two threads that miss the cache together must not build twice, and the random initialisation
    # borrows torch's global generator.
    with LOADING:
        if key not in _cache:
            net = _build(backbone, weights, tuple(levels), fuse).to(device)
            _cache[key] = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            while len(_cache) > _N_CACHED:
                _cache.popitem(last=False)
        _cache.move_to_end(key)
        return _cache[key]


def _cache_key(
    backbone: Any, weights: Any, levels: Sequence[int], device: torch.device
) -> tuple[object, ...]:
    if isinstance(backbone, nn.Module):
        # The digest, not the identity: clones of a detector deep-copy the module.
        if backbone not in _digests:
            _digests[backbone] = weights_digest(backbone)
        return (type(backbone), _digests[backbone], str(device))
    version: tuple[object, ...] = ()
    if weights not in (None, "pretrained"):
        path = Path(weights)
        if not path.is_file():
            raise MissingWeightsError(f"weights={os.fspath(weights)!r}: there is no such file.")
        version = (path.stat().st_mtime_ns, path.stat().st_size)
    return (backbone, str(weights), version, tuple(levels), str(device))


def _build(backbone: Any, weights: Any, levels: tuple[int, ...], fuse: bool) -> FeatureNet:
    if isinstance(backbone, nn.Module):
        return FeatureNet(copy.deepcopy(backbone), fuse=fuse)
    _check_name(backbone)
    # The file is found before the network is built: its absence is the commoner error.
    file = _pretrained_file(backbone) if weights == "pretrained" else weights
    config = _pretrained_config(backbone)
    model = _create(backbone, levels)
    if file is not None:
        # Networks that timm wraps whole (transformers, skad_nano) hold their tensors one level down.
        network = getattr(model, "model", model)
        load_weights(network, read_state_dict(file), f"weights={os.fspath(file)!r}")
    return FeatureNet(
        model,
        mean=config.get("mean", IMAGENET_MEAN),
        std=config.get("std", IMAGENET_STD),
        channels=model.feature_info.channels(),
        strides=model.feature_info.reduction(),
        fuse=fuse,
    )


def _create(name: str, levels: tuple[int, ...]) -> Any:
    timm = import_timm()
    if list(levels) != sorted(set(levels)) or not levels or min(levels) < 0:
        raise ValueError(
            f"levels={levels!r} must be distinct, non-negative and go from shallow to deep, "
            "e.g. (2, 3): the first level fixes the patch grid."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_RANDOM_WEIGHTS_SEED)
        try:
            return timm.create_model(name, features_only=True, out_indices=levels)
        except (IndexError, AssertionError, ValueError) as error:
            last = max(timm.create_model(name, features_only=True).feature_info.out_indices)
            raise ValueError(
                f"levels={levels!r} do not all exist in {name!r}: its last level is {last}."
            ) from error


def _check_name(name: str) -> None:
    timm = import_timm()
    if timm.is_model(name):
        return
    architecture = name.split(".")[0]
    similar = difflib.get_close_matches(architecture, timm.list_models(), n=3)
    hint = f" Did you mean {', '.join(map(repr, similar))}?" if similar else ""
    raise ValueError(f"backbone={name!r} is not a model that timm knows.{hint}")


def _pretrained_config(name: str) -> dict[str, Any]:
    try:
        config = import_timm().models.get_pretrained_cfg(name)
    except RuntimeError as error:  # a tag that does not exist
        tagged = import_timm().list_pretrained(f"{name.split('.')[0]}.*")
        raise ValueError(f"backbone={name!r}: {error} Its tags: {', '.join(tagged)}.") from error
    return config.to_dict() if config is not None else {}


def _pretrained_file(name: str) -> Path:
    bundled = _pretrained_config(name).get("file")
    return Path(bundled) if bundled else hub_file(_hub_id(name))


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
