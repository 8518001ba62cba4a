"""A frozen network that maps pixels to the feature maps of its layers, and what it is recognised by."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from skad._common.forks import LOADING
from skad._common.text import shortened
from skad._features.identity import BackboneIdentity, probe_image
from skad._features.weight_files import IMAGENET_MEAN, IMAGENET_STD, weights_digest
from skad._images import Size, height_and_width
from skad._torch.devices import exact_convolutions
from skad._torch.invariance import pin_convolutions

# Characters that are shown of what a network says.
_SHOWN = 400


class NoFeatureMapsError(ValueError):
    """A network answers something else than feature maps."""


class FeatureNet(nn.Module):
    """A frozen network that maps pixels to the feature maps of its layers.

    Parameters
    ----------
    body : torch.nn.Module
        Maps normalised (B, 3, S, S) images to a sequence of feature maps, shallow to deep.
    mean, std : sequence of 3 floats
        Normalisation of RGB values in 0..1.
    channels : sequence of int or None
        Channels of each map, where known; networks that answer channels last are recognised by it.
    channels_last : bool, default=False
        Whether `body` says that it answers channels last: for maps whose sides are their channels.
    strides : sequence of int or None
        Stride of each feature map in pixels of the image, where known.
    configuration : str or None
        Digest of what a network of the user's own is made of. None: its weights alone identify it.
    digest : str or None
        Fingerprint of the weights, where `body` no longer has them as they were (fused convolutions).
        None: it is taken of `body`.
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
        configuration: str | None = None,
        digest: str | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.configuration = configuration
        self.channels = channels
        self.strides = strides
        self.channels_last = channels_last
        self.digest = weights_digest(body) if digest is None else digest
        self.shared: dict[object, Any] = {}  # what others derive from this network, built once
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))
        self.body = body
        pin_convolutions(body)
        freeze(self)
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
        normalised = _normalised(pixels, self.mean, self.std).permute(0, 3, 1, 2)
        maps = _listed(self.body(normalised))
        if self.channels is None:
            return maps
        return [
            self._channels_first(layer, n_channels)
            for layer, n_channels in zip(maps, self.channels, strict=True)
        ]

    def _channels_first(self, layer: torch.Tensor, n_channels: int) -> torch.Tensor:
        are_first, are_last = layer.shape[1] == n_channels, layer.shape[3] == n_channels
        if are_first and not (are_last and self.channels_last):
            return layer
        return layer.permute(0, 3, 1, 2)

    def shapes(self, size: Size) -> tuple[tuple[int, ...], ...]:
        """Shapes of the feature maps of one image, as the network answers and not as it is described.

        Parameters
        ----------
        size : int or tuple of two ints
            Of the image, in pixels.

        Returns
        -------
        tuple of (1, C_j, h_j, w_j)

        Raises
        ------
        ValueError
            If the network cannot take such images.
        """
        identity = self.identity(size)
        if identity is not None:
            return identity.shapes
        with LOADING:
            if ("shapes", size) not in self.shared:
                with _asking(size, self.mean.device) as image:
                    maps = self(image)
                self.shared["shapes", size] = tuple(tuple(layer.shape) for layer in maps)
            return self.shared["shapes", size]

    def tokens(self, pixels: torch.Tensor) -> tuple[list[torch.Tensor], tuple[int, int]]:
        """Tokens of each layer; those that stand for no place, as class and registers, come first.

        Parameters
        ----------
        pixels : torch.Tensor of shape (B, H, W, 3)
            As for :meth:`forward`.

        Returns
        -------
        tokens : list of torch.Tensor of shape (B, p + h * w, C)
            p is 0 for a network of the user's own, whose maps have no such tokens.
        grid : (h, w)

        Raises
        ------
        NoFeatureMapsError
            If layers differ in their grid or width, which those of a plain transformer do not.
        """
        maps, prefixes = self._with_prefixes(pixels)
        check_tokens([tuple(layer.shape[1:]) for layer in maps])
        tokens = [layer.flatten(2).transpose(1, 2) for layer in maps]
        if prefixes is not None:
            tokens = [torch.cat(pair, dim=1) for pair in zip(prefixes, tokens, strict=True)]
        return tokens, (int(maps[0].shape[2]), int(maps[0].shape[3]))

    def _with_prefixes(
        self, pixels: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
        """Return maps of all layers, and tokens that stand for no place, if timm's model has any."""
        model = getattr(self.body, "model", None)
        if self.configuration is not None or not getattr(model, "num_prefix_tokens", 0):
            return self(pixels), None
        normalised = _normalised(pixels, self.mean, self.std).permute(0, 3, 1, 2)
        found = model.forward_intermediates(  # type: ignore[union-attr]
            normalised,
            indices=list(self.body.out_indices),  # type: ignore[arg-type]
            return_prefix_tokens=True,
            intermediates_only=True,
        )
        maps, prefixes = zip(*found, strict=True)
        return list(maps), list(prefixes)

    def identity(self, size: Size) -> BackboneIdentity | None:
        """Take down what a network of the user's own is recognised by, beside its weights.

        Parameters
        ----------
        size : int or tuple of two ints
            Of the images that it is asked about, in pixels.

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

    def _answered(self, configuration: str, size: Size) -> BackboneIdentity:
        with _asking(size, self.mean.device) as image:
            return BackboneIdentity.of(configuration, self(image))

    def is_up_to_date(self, network: nn.Module, size: Size) -> bool:
        """Whether a network of the user's own still answers as when it was built into this one.

        What it reads from outside (variables of the environment, files, libraries) may have changed,
        without anything of itself.

        Parameters
        ----------
        network : torch.nn.Module
            As the user has it.
        size : int or tuple of two ints
            Of the images that it is asked about, in pixels.
        """
        noted = self.identity(size)
        if noted is None:
            return True
        # It is asked without leaving a trace in it; large weights are not copied for that.
        asked = copied(network, shared=network.parameters()).eval()
        colours = [colour.to(device_of(network)) for colour in (self.mean, self.std)]
        with _asking(size, colours[0].device) as image:
            answer = _listed(asked(_normalised(image, *colours).permute(0, 3, 1, 2)))
        return noted.difference(BackboneIdentity.of(noted.configuration, answer)) is None

    def trainable_copy(self) -> FeatureNet:
        """Copy the network for training; the original stays frozen."""
        trainable = FeatureNet(
            copy.deepcopy(self.body),
            self.mean.flatten().tolist(),
            self.std.flatten().tolist(),
            self.channels,
            self.strides,
            channels_last=self.channels_last,
        )
        return trainable.requires_grad_(True)


def check_tokens(shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuse layers (C, h, w) that differ in shape, which those of a plain transformer do not."""
    if len(set(shapes)) > 1:
        raise NoFeatureMapsError(
            "the backbone must return layers of one grid and width, as a plain vision transformer does; "
            f"it returned {shortened(str(list(shapes)))}."
        )


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters(), torch.empty(0)).device


def copied(network: nn.Module, shared: Iterable[torch.Tensor] = ()) -> nn.Module:
    """Copy a network of the user's own, all but tensors that are shared."""
    try:
        return copy.deepcopy(network, {id(tensor): tensor for tensor in shared})
    except Exception as error:  # whatever the parts of a network raise
        raise ValueError(
            f"the backbone cannot be copied, which is done before it is used ({_said(error)}): take out "
            "of it what copy.deepcopy refuses, such as locks, open files and tensors computed from "
            "parameters (torch.nn.utils.weight_norm; the one of parametrizations can be copied)."
        ) from error


def freeze(network: nn.Module) -> None:
    # Compiled networks have no `requires_grad_`, and copies of them parameters that are computed.
    for parameter in network.parameters():
        parameter.detach_()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {shortened(' '.join(str(error).split()), _SHOWN)}"


def _normalised(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Subtract the mean, divide by the deviation; by rows, since three colours fill no register."""
    rows = pixels.flatten(2)
    rows = rows.float().div_(255) if pixels.dtype == torch.uint8 else rows.clone()
    means, deviations = (colour.flatten().repeat(pixels.shape[2]) for colour in (mean, std))
    return rows.sub_(means).div_(deviations).view(pixels.shape)


@contextmanager
def _asking(size: Size, device: torch.device) -> Iterator[torch.Tensor]:
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
def naming_the_size(size: Size) -> Iterator[None]:
    """Say of whatever a network raises that it cannot take images of this size."""
    try:
        yield
    except (torch.cuda.OutOfMemoryError, MemoryError, NoFeatureMapsError):
        raise
    except Exception as error:  # networks raise what they like
        height, width = height_and_width(size)
        raise ValueError(
            f"the backbone cannot take images of {height} x {width} pixels: {_said(error)}"
        ) from error
