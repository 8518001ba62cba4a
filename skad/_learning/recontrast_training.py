"""Training of ReContrast's network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from skad._learning.losses import (
    global_cosine_loss,
    hard_mining_level,
    regional_cosine_loss,
)
from skad._learning.recontrast_network import ReContrastNetwork
from skad._learning.stable_norm import set_norm_mode
from skad._learning.training import Training
from skad._torch.accelerators import recorded
from skad._torch.devices import autocast, upcast

# Steps after which the moments of the optimiser are reset where batch norms are "stable".
RESET_EVERY = 500
_LOSSES = {"global": global_cosine_loss, "regional": regional_cosine_loss}


@dataclass(frozen=True)
class ReContrastSettings:
    """Settings of the training, under the paper's symbols.

    Parameters
    ----------
    max_iter : int
        Steps of the whole training; the level of hard mining depends on it.
    lr, encoder_lr, weight_decay : float
        Of AdamW: learning rates of the new layers and of the trained encoder, weight decay of all.
    loss : {"global", "regional"}
    hard_mining : bool
    alpha, alpha_start, warmup_fraction : float
        Level of hard mining; see :func:`skad._learning.losses.hard_mining_level`.
    stop_gradient : bool
        Whether targets are constants.
    bn : {"eval", "train", "stable"}
        Batch norms of the trained encoder.
    precision : {"float32", "bfloat16"}
        Of convolutions; parameters, norms' statistics and losses are float32.
    """

    max_iter: int
    lr: float = 2e-3
    encoder_lr: float = 1e-5
    weight_decay: float = 1e-5
    loss: str = "global"
    hard_mining: bool = True
    alpha: float = 1.0
    alpha_start: float = -3.0
    warmup_fraction: float = 0.1
    stop_gradient: bool = True
    bn: str = "eval"
    precision: str = "float32"


class ReContrastTraining(Training):
    """Trains a network, batch by batch.

    Parameters
    ----------
    network : ReContrastNetwork
    settings : ReContrastSettings
    n_iter, state
        As for :class:`Training`.

    Attributes
    ----------
    n_iter, curves
        As of :class:`Training`; "feature_diversity" is the spread of the encoder's normalised features.
    """

    def __init__(
        self,
        network: ReContrastNetwork,
        settings: ReContrastSettings,
        n_iter: int = 0,
        state: dict[str, np.ndarray] | None = None,
    ) -> None:
        self.settings = settings
        encoder = [] if network.encoder is None else list(network.encoder.parameters())
        known = {id(parameter) for parameter in encoder}
        new = [p for p in network.parameters() if id(p) not in known]
        groups: list[dict[str, Any]] = [{"params": new, "lr": settings.lr}]
        if encoder:
            groups.append({"params": encoder, "lr": settings.encoder_lr})
        device = new[0].device
        optimizer = torch.optim.AdamW(
            groups,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),
            capturable=device.type == "cuda",
        )
        super().__init__(network, optimizer, n_iter, state)
        self.curves["feature_diversity"] = []
        if network.encoder is not None:
            set_norm_mode(network.encoder, settings.bn)
        self._level = torch.zeros((), device=device)
        self._set_level()
        self._recorded_step = recorded(self._step, device)

    def step(self, pixels: torch.Tensor) -> None:
        self._set_level()
        loss, diversity = self._recorded_step(pixels)
        self.n_iter += 1
        if self.settings.bn == "stable" and self.n_iter % RESET_EVERY == 0:
            self._forget_moments()
        self.curves["loss_curve"].append(loss)
        self.curves["feature_diversity"].append(diversity)

    def _set_level(self) -> None:
        """Write the level of hard mining to where a recorded step reads it."""
        s = self.settings
        level = hard_mining_level(
            self.n_iter, s.max_iter, s.alpha, s.alpha_start, s.warmup_fraction
        )
        self._level.fill_(level)

    def _step(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # May be recorded: the obligations stand in `skad._torch.cuda_graphs`.
        with autocast(pixels.device, self.settings.precision):
            targets, outputs = self.network(pixels)
        loss = self.loss(targets, outputs)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), feature_diversity(targets[-2])

    def _forget_moments(self) -> None:
        """Reset the optimiser in place, as if it had taken no step."""
        for moments in self.optimizer.state.values():
            for slot in self._slots:
                moments[slot].zero_()

    def loss(self, targets: list[torch.Tensor], outputs: list[torch.Tensor]) -> torch.Tensor:
        """Loss of a batch: the sum over three layers, averaged over the two directions.

        Parameters
        ----------
        targets, outputs : lists of 3 or 6 torch.Tensor of shape (B, C_k, h_k, w_k)

        Returns
        -------
        torch.Tensor of shape ()
        """
        s = self.settings
        level = self._level if s.hard_mining else None
        total = torch.zeros((), dtype=torch.float32, device=targets[0].device)
        for target, output in zip(targets, outputs, strict=True):
            if s.stop_gradient:
                target = target.detach()
            total = total + _LOSSES[s.loss](target, output, level)
        return total * (3 / len(targets))


def feature_diversity(layer: torch.Tensor) -> torch.Tensor:
    """Spread of a batch's feature vectors: 0 where they are all alike (ReContrast, section 2.3).

    Parameters
    ----------
    layer : torch.Tensor of shape (B, C, h, w)

    Returns
    -------
    torch.Tensor of shape ()
        Standard deviation of the normalised vectors over images and positions, mean over channels.
    """
    with torch.no_grad():
        normalised = F.normalize(upcast(layer), dim=1)
        return normalised.std(dim=(0, 2, 3), correction=0).mean()
