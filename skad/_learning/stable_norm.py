"""Batch normalisation that does not divide by the variance of a dead channel.

One kind of part activates some channels of a pre-trained network hardly at all. Their variance over
a batch is nearly 0, and dividing by it turns noise into signal (ReContrast, appendix on training
instability).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from skad._torch.devices import upcast

# Channels whose variance over the batch lies below this, and below the pre-trained one, are dead.
DEAD_VARIANCE = 5e-4


class StableBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with a substitute for the variance of dead channels.

    In training, a channel whose variance over the batch is not above
    min(`DEAD_VARIANCE`, pre-trained running variance) is divided by a constant instead; its gradient
    passes through the mean alone. In evaluation this is ordinary batch normalisation.

    The substitute is the pre-trained running variance, as the paper says. The authors' code takes the
    threshold itself (``pretrained=False``).
    """

    pretrained: bool
    pretrained_var: torch.Tensor

    @classmethod
    def convert(cls, norm: nn.BatchNorm2d, pretrained: bool = True) -> None:
        """Turn a layer into this class in place: parameters, buffers and names stay.

        Parameters
        ----------
        norm : torch.nn.BatchNorm2d
            Holds the pre-trained statistics.
        pretrained : bool, default=True
            Whether the substitute is the pre-trained variance; see the class.
        """
        norm.__class__ = cls if type(norm) is nn.BatchNorm2d else StableBatchNormAct2d
        assert norm.running_var is not None
        # Not in the state dict: it follows from the pre-trained weights.
        norm.register_buffer("pretrained_var", norm.running_var.clone(), persistent=False)
        norm.pretrained = pretrained  # type: ignore[assignment]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        threshold = self.pretrained_var.clamp_max(DEAD_VARIANCE)
        values = upcast(x)
        biased, mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)
        n = x.numel() // x.shape[1]
        unbiased = biased * n / max(n - 1, 1)
        dead = unbiased <= threshold
        substitute = self.pretrained_var if self.pretrained else threshold
        variance = torch.where(dead, substitute, biased)
        with torch.no_grad():
            assert self.momentum is not None
            seen = torch.where(dead, substitute, unbiased)
            self.running_mean.lerp_(mean.detach().to(self.running_mean), self.momentum)
            self.running_var.lerp_(seen.to(self.running_var), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        # Scale and shift each channel in one pass over the pixels.
        return torch.addcmul(_column(shift), values, _column(scale)).to(x.dtype)


class StableBatchNormAct2d(StableBatchNorm2d):
    """The same for a norm with an activation of its own, as timm's networks have."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(super().forward(x)))


def _column(values: torch.Tensor) -> torch.Tensor:
    return values[None, :, None, None]


def set_norm_mode(encoder: nn.Module, mode: str) -> None:
    """Put an encoder into training with its batch norms as `mode` says.

    All else stays as in evaluation: dropout and stochastic depth would draw from torch's global
    generator, and blur the features that the encoder is there for.

    Parameters
    ----------
    encoder : torch.nn.Module
    mode : {"train", "eval", "stable"}
        "train": statistics of the batch. "eval": pre-trained statistics; scale and shift are trained
        all the same. "stable": of the batch, dead channels excepted (layers converted before).
    """
    encoder.eval()
    if mode != "eval":
        for module in encoder.modules():
            if isinstance(module, _BatchNorm):
                module.train()


def make_stable(encoder: nn.Module) -> None:
    """Convert all batch norms of an encoder with pre-trained statistics.

    Parameters
    ----------
    encoder : torch.nn.Module

    Raises
    ------
    ValueError
        If one does something else besides, which the conversion would take away.
    """
    norms = [(name, m) for name, m in encoder.named_modules() if isinstance(m, nn.BatchNorm2d)]
    for name, norm in norms:
        if not _is_known(norm):
            raise ValueError(
                f'bn="stable" knows batch norms of torch and of timm; layer {name!r} of the backbone is '
                f'a {type(norm).__name__}: use bn="eval" or bn="train".'
            )
    for _, norm in norms:
        StableBatchNorm2d.convert(norm)


def _is_known(norm: nn.BatchNorm2d) -> bool:
    """Whether a norm does what torch's does, with an activation afterwards if it is timm's."""
    if not (norm.affine and norm.track_running_stats):
        return False
    has_activation = all(
        isinstance(getattr(norm, part, None), nn.Module) for part in ("drop", "act")
    )
    return type(norm) in (nn.BatchNorm2d, StableBatchNorm2d) or has_activation
