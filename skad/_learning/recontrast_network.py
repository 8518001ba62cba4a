"""ReContrast's network: two encoders, one bottleneck, one decoder, two sets of heads.

The features of each encoder pass through the same bottleneck and decoder, which reconstruct those of
the other encoder. Where the reconstruction fails, the image shows something that the training images
did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from skad._learning.losses import cosine_distances

Maps = list[torch.Tensor]

# At stride 16. Beyond about this many, a generic decoder of basic blocks has more parameters than that
# of WideResNet-50 (87 million), the largest published.
_MOST_BASIC_CHANNELS = 512


@dataclass(frozen=True)
class DecoderDesign:
    """Sizes of the decoder, and of the bottleneck before it.

    Parameters
    ----------
    channels : tuple of 3 ints
        Channels of the encoder's feature maps at strides 4, 8 and 16.
    counts : tuple of 3 ints
        Residual blocks of the decoder's stages at these strides.
    expansion : {1, 4}
        1: basic blocks of two 3 x 3 convolutions; 4: bottleneck blocks.
    width : float
        Channels inside a bottleneck block, in quarters of the block's output.
    groups : int
        Groups of the convolution inside a bottleneck block.
    signed : bool
        Whether the decoder's stages end without ReLU, since what they reconstruct may be negative.
    """

    channels: tuple[int, int, int]
    counts: tuple[int, int, int]
    expansion: int
    width: float = 1.0
    groups: int = 1
    signed: bool = False

    @property
    def n_bottleneck_blocks(self) -> int:
        """Number of blocks of the encoder's stage 4: 2 in ResNet-18, else 3."""
        return 2 if max(self.counts) <= 2 else 3


def decoder_design(body: nn.Module, channels: Sequence[int]) -> DecoderDesign:
    """Choose the decoder for an encoder: its mirror image if it is a ResNet, else generic blocks.

    Parameters
    ----------
    body : torch.nn.Module
        The encoder. A ResNet holds the stages ``layer1`` to ``layer3``, itself or one level down in
        ``model``.
    channels : sequence of 3 ints
        Of the feature maps at strides 4, 8 and 16.

    Returns
    -------
    DecoderDesign

    Examples
    --------
    >>> decoder_design(nn.Identity(), (40, 80, 160)).counts
    (2, 2, 2)
    """
    return _mirrored(body, channels) or _generic(channels)


def _mirrored(body: nn.Module, channels: Sequence[int]) -> DecoderDesign | None:
    """Mirror a ResNet of basic or bottleneck blocks whose channels double; None for other networks."""
    body = getattr(body, "model", body)
    stages = [getattr(body, f"layer{i}", None) for i in (1, 2, 3)]
    c1, c2, c3 = channels
    in_blocks = all(isinstance(stage, nn.Sequential | nn.ModuleList) for stage in stages)
    if not in_blocks or (c2, c3) != (2 * c1, 4 * c1):
        return None
    block = next(iter(stages[0]), None)  # type: ignore[arg-type]
    kernel, expansion = getattr(block, "conv2", None), getattr(block, "expansion", None)
    if not isinstance(kernel, nn.Conv2d) or not isinstance(expansion, int):
        return None
    return DecoderDesign(
        channels=(c1, c2, c3),
        counts=tuple(len(stage) for stage in stages),  # type: ignore[arg-type]
        expansion=expansion,
        width=1.0 if expansion == 1 else kernel.out_channels / (c1 // 4),
        groups=kernel.groups,
    )


def _generic(channels: Sequence[int]) -> DecoderDesign:
    """Design a decoder that knows nothing of its encoder but the channels.

    Two blocks per stage, as for ResNet-18, the shallowest ResNet: how many blocks other encoders have
    says little, since theirs are depthwise or grouped convolutions, a tenth of the cost of these. Where
    there are many channels, 3 x 3 convolutions between all of them would outgrow any encoder, so there
    ResNet's own way out is taken, bottleneck blocks.
    """
    c1, c2, c3 = channels
    expansion = 1 if c3 <= _MOST_BASIC_CHANNELS else 4
    return DecoderDesign((c1, c2, c3), (2, 2, 2), expansion, signed=True)


def _conv(n_in: int, n_out: int, side: int, stride: int = 1, groups: int = 1) -> nn.Module:
    return nn.Conv2d(n_in, n_out, side, stride, side // 2, groups=groups, bias=False)


def _spatial(n_in: int, n_out: int, scale: str, groups: int = 1) -> nn.Module:
    """Convolution over neighbours, which may halve ("down") or double ("up") the resolution."""
    if scale == "up":
        return nn.ConvTranspose2d(n_in, n_out, 2, 2, groups=groups, bias=False)
    return _conv(n_in, n_out, 3, 2 if scale == "down" else 1, groups)


class Residual(nn.Module):
    """A residual block of ResNet whose first convolution over neighbours may change the resolution.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    design : DecoderDesign
    scale : {"same", "down", "up"}
    signed : bool, default=False
        Whether it ends without ReLU.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        design: DecoderDesign,
        scale: str = "same",
        signed: bool = False,
    ) -> None:
        super().__init__()
        self.signed = signed
        if design.expansion == 1:
            layers = [
                *(_spatial(n_in, n_out, scale), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)),
                *(_conv(n_out, n_out, 3), nn.BatchNorm2d(n_out)),
            ]
        else:
            inner = int(design.width * (n_out // 4))
            layers = [
                *(_conv(n_in, inner, 1), nn.BatchNorm2d(inner), nn.ReLU(inplace=True)),
                _spatial(inner, inner, scale, design.groups),
                *(nn.BatchNorm2d(inner), nn.ReLU(inplace=True)),
                *(_conv(inner, n_out, 1), nn.BatchNorm2d(n_out)),
            ]
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Sequential()
        if scale == "up":
            self.shortcut = nn.Sequential(_spatial(n_in, n_out, scale), nn.BatchNorm2d(n_out))
        elif scale == "down" or n_in != n_out:
            stride = 2 if scale == "down" else 1
            self.shortcut = nn.Sequential(_conv(n_in, n_out, 1, stride), nn.BatchNorm2d(n_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = self.body(x).add_(self.shortcut(x))
        return total if self.signed else F.relu(total, inplace=True)


def _stage(
    n_in: int, n_out: int, n_blocks: int, design: DecoderDesign, scale: str, signed: bool = False
) -> nn.Module:
    """Blocks in a row: the first changes the resolution, the last may end without ReLU."""
    return nn.Sequential(
        *(
            Residual(
                n_out if i else n_in,
                n_out,
                design,
                "same" if i else scale,
                signed=signed and i == n_blocks - 1,
            )
            for i in range(n_blocks)
        )
    )


class Bottleneck(nn.Module):
    """Brings three layers to the grid of the deepest, joins them, and halves the grid once more."""

    def __init__(self, design: DecoderDesign) -> None:
        super().__init__()
        c1, c2, c3 = design.channels
        self.layer1 = nn.Sequential(*self._halve(c1, c2), *self._halve(c2, c3))
        self.layer2 = nn.Sequential(*self._halve(c2, c3))
        self.blocks = _stage(3 * c3, 2 * c3, design.n_bottleneck_blocks, design, "down")

    @staticmethod
    def _halve(n_in: int, n_out: int) -> list[nn.Module]:
        return [_conv(n_in, n_out, 3, 2), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]

    def forward(self, maps: Maps) -> torch.Tensor:
        joined = torch.cat([self.layer1(maps[0]), self.layer2(maps[1]), maps[2]], dim=1)
        return self.blocks(joined)


class Decoder(nn.Module):
    """Three stages back up, deepest first, to the grids and channels of the encoder's feature maps."""

    def __init__(self, design: DecoderDesign) -> None:
        super().__init__()
        c1, c2, c3 = design.channels
        widths = [2 * c3, c3, c2, c1]
        self.stages = nn.ModuleList(
            _stage(n_in, n_out, count, design, "up", design.signed)
            for n_in, n_out, count in zip(widths, widths[1:], design.counts, strict=False)
        )

    def forward(self, x: torch.Tensor) -> Maps:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[::-1]


def _heads(design: DecoderDesign) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(width, width, 1) for width in design.channels)


class ReContrastNetwork(nn.Module):
    """Encoders, bottleneck, decoder and heads.

    Parameters
    ----------
    frozen : torch.nn.Module
        Maps pixels to feature maps at strides 4, 8 and 16; never trained, always in evaluation mode, and
        not part of the state dict.
    trained : torch.nn.Module or None
        A copy of it that adapts to the images. None: only the frozen one is used.
    design : DecoderDesign
    pairs : {"cross", "own"}
        "cross": each encoder's features are reconstructed from those of the other one, by heads of
        their own. "own": the (trained) encoder's features from themselves, without heads.
    """

    def __init__(
        self,
        frozen: nn.Module,
        trained: nn.Module | None,
        design: DecoderDesign,
        pairs: str = "cross",
    ) -> None:
        super().__init__()
        self._frozen = (
            frozen,
        )  # in a tuple, so that it is no submodule: train() must not reach it
        self.encoder = trained
        self.pairs = pairs
        self.bottleneck = Bottleneck(design)
        self.decoder = Decoder(design)
        if pairs == "cross":
            self.heads_frozen = _heads(design)
            self.heads_trained = _heads(design)

    @property
    def frozen(self) -> nn.Module:
        """The encoder that is never trained."""
        return self._frozen[0]

    def forward(self, pixels: torch.Tensor) -> tuple[Maps, Maps]:
        """Features of the encoders, and their reconstructions.

        Parameters
        ----------
        pixels : torch.Tensor of shape (B, S, S, 3)

        Returns
        -------
        targets, outputs : lists of torch.Tensor of shape (B, C_k, h_k, w_k)
            "cross": layers 1 to 3 of the frozen encoder, then of the trained one. "own": layers 1 to 3.
        """
        if self.pairs == "own":
            encoded = self._frozen_maps(pixels) if self.encoder is None else self.encoder(pixels)
            return encoded, self.decoder(self.bottleneck(encoded))
        assert self.encoder is not None
        trained, frozen = self.encoder(pixels), self._frozen_maps(pixels)
        # Both halves in one pass: batch norms take the statistics of the mixture.
        both = [torch.cat(pair) for pair in zip(trained, frozen, strict=True)]
        # Not `chunk`: an exporter would fix the size of the batch.
        n = [pixels.shape[0]] * 2
        halves = [layer.split(n) for layer in self.decoder(self.bottleneck(both))]
        outputs = [head(y) for head, (y, _) in zip(self.heads_frozen, halves, strict=True)]
        outputs += [head(y) for head, (_, y) in zip(self.heads_trained, halves, strict=True)]
        return frozen + trained, outputs

    @torch.no_grad()
    def _frozen_maps(self, pixels: torch.Tensor) -> Maps:
        self.frozen.eval()
        return self.frozen(pixels)


def build_network(
    frozen: nn.Module,
    trained: nn.Module | None,
    design: DecoderDesign,
    pairs: str,
    generator: torch.Generator | None,
) -> ReContrastNetwork:
    """Build a network whose new layers are initialised as in the authors' code.

    Convolutions: normal, fan-out, gain of ReLU. Transposed convolutions and biases: torch's default.

    Parameters
    ----------
    frozen, trained, design, pairs
        As for :class:`ReContrastNetwork`.
    generator : torch.Generator or None
        On the CPU; torch's global generator is left alone. None: new layers hold arbitrary numbers,
        which a state dict replaces.

    Returns
    -------
    ReContrastNetwork
        On the CPU.
    """
    # Without storage, hence without a draw from the global generator.
    with torch.device("meta"):
        network = ReContrastNetwork(frozen, None, design, pairs)
    network.to_empty(device="cpu")
    if generator is not None:
        for module in network.modules():
            _initialise(module, generator)
    network.encoder = trained
    return network


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    if isinstance(module, nn.BatchNorm2d):
        module.reset_parameters()
    elif isinstance(module, nn.ConvTranspose2d):
        nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(
            module.weight, mode="fan_out", nonlinearity="relu", generator=generator
        )
        if module.bias is not None:
            bound = module.weight[0].numel() ** -0.5
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)


def anomaly_map(
    targets: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor], size: int | tuple[int, int]
) -> torch.Tensor:
    """Sum of the cosine distances of all pairs, each resized to the size of the image.

    Parameters
    ----------
    targets, outputs : sequences of torch.Tensor of shape (B, C_k, h_k, w_k)
    size : int or tuple of two ints
        Of the images, in pixels.

    Returns
    -------
    torch.Tensor of shape (B, H, W)
        Not smoothed.
    """
    return summed(pair_distances(targets, outputs), size)


def pair_distances(
    targets: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Cosine distances of all pairs.

    Parameters
    ----------
    targets, outputs : sequences of torch.Tensor of shape (B, C_k, h_k, w_k)

    Returns
    -------
    tuple of torch.Tensor of shape (B, h_k, w_k)
    """
    return tuple(cosine_distances(*pair) for pair in zip(targets, outputs, strict=True))


def summed(distances: Sequence[torch.Tensor], size: int | tuple[int, int]) -> torch.Tensor:
    """Sum of the distances of all pairs, each resized to the size of the image.

    Parameters
    ----------
    distances : sequence of torch.Tensor of shape (B, h_k, w_k)
    size : int or tuple of two ints
        Of the images, in pixels.

    Returns
    -------
    torch.Tensor of shape (B, H, W)
        Not smoothed.
    """
    total = torch.zeros((), device=distances[0].device)
    for layer in distances:
        grown = F.interpolate(layer[:, None], size=size, mode="bilinear", align_corners=True)
        total = total + grown
    return total[:, 0]
