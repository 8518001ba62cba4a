"""What "auto" stands for: sizes, layers and patches by the kind of backbone, as timm describes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from skad._common.forks import LOADING
from skad._features._timm import import_timm
from skad._features.backbones import pretrained_config
from skad._features.lite import NETWORKS

# Side of the images, in pixels, that a network of the user's own is given by default.
_IMAGE_SIZE = 224
# Side for images that have as many pixels.
_LARGE_SIZE = 320
# The papers' layers of a ResNet, and their strides.
_LAYERS, _STRIDES = (2, 3), (8, 16)
# Depth of the usual transformer, and its blocks in the middle.
_DEPTH, _MIDDLE = 12, range(2, 10)
# Strides of all layers, by the name of the network.
_known: dict[str, list[int]] = {}


def default_image_size(backbone: str | nn.Module, side: float) -> int:
    """Choose the side of the square that a backbone sees.

    Parameters
    ----------
    backbone : str or torch.nn.Module
    side : float
        Usual shorter side of the images, in pixels. What is larger shows more at 320 px than at 224;
        scaling up what is smaller shows nothing new.

    Returns
    -------
    int
        What the backbone is made for, or 320 if that is less and the images are larger. 224 for a
        network of the user's own, which may take one size alone.

    Raises
    ------
    ValueError
        If timm does not know the name.
    """
    if not isinstance(backbone, str):
        return _IMAGE_SIZE
    config = pretrained_config(NETWORKS.get(backbone, backbone))
    size = int(config.get("input_size", (_IMAGE_SIZE,))[-1])
    if config.get("fixed_input_size") or side < _LARGE_SIZE:
        return size
    return max(size, _LARGE_SIZE)


def default_layers(backbone: str | nn.Module) -> tuple[int, ...]:
    """Choose the layers whose features are used.

    Parameters
    ----------
    backbone : str or torch.nn.Module

    Returns
    -------
    tuple of int
        Those of strides 8 and 16, which are PatchCore's (2, 3) of a ResNet; the first two where there
        are no such; of a transformer whose blocks all have one stride, blocks at a quarter, a half,
        three quarters and the whole of its depth. (2, 3) for a network of the user's own, of which all
        maps are used.

    Raises
    ------
    ValueError
        If timm does not know the name.
    """
    if not isinstance(backbone, str):
        return _LAYERS
    strides = layer_strides(backbone)
    if is_plain_transformer(backbone):
        depth = len(strides)
        return tuple(sorted({max(0, depth * part // 4 - 1) for part in (1, 2, 3, 4)}))
    return layers_of_strides(backbone, _STRIDES) or tuple(range(min(2, len(strides))))


def layers_of_strides(backbone: str, wanted: Sequence[int]) -> tuple[int, ...] | None:
    """Find the layers whose feature maps have given strides; of several of one stride the deepest.

    Parameters
    ----------
    backbone : str
    wanted : sequence of int
        In pixels, each once, ascending.

    Returns
    -------
    tuple of int, or None
        None if the network does not have a layer of every stride.

    Raises
    ------
    ValueError
        If timm does not know the name.

    Examples
    --------
    >>> layers_of_strides("resnet18", (4, 8, 16)), layers_of_strides("convnext_atto", (4, 8, 16))
    ((1, 2, 3), (0, 1, 2))
    """
    strides = layer_strides(backbone)
    chosen = [i for i, stride in enumerate(strides) if stride in wanted]
    deepest = [i for i in chosen if strides[i] not in strides[i + 1 :]]
    return tuple(deepest) if [strides[i] for i in deepest] == list(wanted) else None


def middle_layers(backbone: str | nn.Module) -> tuple[int, ...]:
    """Choose the layers whose features are reconstructed.

    Parameters
    ----------
    backbone : str or torch.nn.Module

    Returns
    -------
    tuple of int
        The middle eight of a transformer's twelve blocks; of deeper ones eight at the same parts of
        their depth, which is every second of 24. (2, ..., 9) for a network of the user's own, of which
        all maps are used.

    Raises
    ------
    ValueError
        If timm does not know the name.
    """
    depth = len(layer_strides(backbone)) if isinstance(backbone, str) else _DEPTH
    return tuple(sorted({min(depth - 1, depth * block // _DEPTH) for block in _MIDDLE}))


def default_patch_size(backbone: str | nn.Module) -> int:
    """Choose the side of the neighbourhood that a patch is the mean of.

    Parameters
    ----------
    backbone : str or torch.nn.Module

    Returns
    -------
    int
        3, as in PatchCore; 1 for a transformer, whose tokens have seen their neighbours.

    Raises
    ------
    ValueError
        If timm does not know the name.
    """
    return 1 if isinstance(backbone, str) and is_plain_transformer(backbone) else 3


def default_normalize(backbone: str | nn.Module) -> bool:
    """Choose whether the vectors of layers are brought to one length.

    Parameters
    ----------
    backbone : str or torch.nn.Module

    Returns
    -------
    bool
        True for a transformer, whose tokens are made to be compared by their angles.

    Raises
    ------
    ValueError
        If timm does not know the name.
    """
    return isinstance(backbone, str) and is_plain_transformer(backbone)


def is_plain_transformer(backbone: str) -> bool:
    """Whether all layers of a network, more than a few, have one stride: a transformer's blocks."""
    strides = layer_strides(backbone)
    return len(strides) > 4 and len(set(strides)) == 1


def layer_strides(backbone: str) -> list[int]:
    """Strides of all layers of a network of timm's, shallow to deep.

    Parameters
    ----------
    backbone : str

    Returns
    -------
    list of int

    Raises
    ------
    ValueError
        If timm does not know the name.
    """
    name = NETWORKS.get(backbone, backbone)
    pretrained_config(name)  # it refuses what timm does not know
    architecture = name.split(".")[0]
    if architecture not in _known:
        _known[architecture] = [int(layer["reduction"]) for layer in _described(architecture)]
    return _known[architecture]


def _described(architecture: str) -> list[dict[str, Any]]:
    timm = import_timm()
    with LOADING, torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):  # without memory for weights
                model: Any = timm.create_model(architecture, features_only=True)
        except (NotImplementedError, RuntimeError):  # it computes while it is built
            model = timm.create_model(architecture, features_only=True)
    return model.feature_info.info
