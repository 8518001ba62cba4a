"""Training of Dinomaly's network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from skad._learning.dinomaly_network import DinomalyNetwork, Dropout
from skad._learning.losses import discarding_cosine_loss
from skad._learning.stable_adamw import StableAdamW
from skad._learning.training import Training
from skad._torch.devices import autocast

# Longest gradient, over all parameters.
_MAX_NORM = 0.1
# Steps over which the learning rate rises from 0, and their largest share of a training.
_WARMUP, _WARMUP_SHARE = 100, 10


@dataclass(frozen=True)
class DinomalySettings:
    """Settings of the training.

    Parameters
    ----------
    max_iter : int
        Steps of the whole training; the learning rate depends on it.
    lr, final_lr : float
        Learning rate after the warm-up, and at the end.
    weight_decay : float
    discard : float
        Share of positions, the best reconstructed, that hardly count.
    discard_iter : int
        Steps over which that share rises from 0.
    seed : int
        Of the noise in the bottleneck.
    precision : {"float32", "bfloat16"}
        Of products; parameters, sums and losses are float32.
    """

    max_iter: int
    lr: float = 2e-3
    final_lr: float = 2e-4
    weight_decay: float = 1e-4
    discard: float = 0.9
    discard_iter: int = 1000
    seed: int = 0
    precision: str = "float32"


class DinomalyTraining(Training):
    """Trains a network, batch by batch.

    Parameters
    ----------
    network : DinomalyNetwork
    settings : DinomalySettings
    n_iter, state
        As for :class:`Training`.
    """

    _slots = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def __init__(
        self,
        network: DinomalyNetwork,
        settings: DinomalySettings,
        n_iter: int = 0,
        state: dict[str, np.ndarray] | None = None,
    ) -> None:
        self.settings = settings
        parameters = list(network.parameters())
        optimizer = StableAdamW(parameters, settings.lr, settings.weight_decay)
        super().__init__(network, optimizer, n_iter, state)
        self._generator = torch.Generator(parameters[0].device)
        for module in network.modules():
            if isinstance(module, Dropout):
                module.generator = self._generator

    def step(self, pixels: torch.Tensor) -> None:
        s = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.n_iter, s.max_iter, s.lr, s.final_lr)
        # Every step has noise of its own, so that a training that goes on is as one that never stopped.
        noise = np.random.SeedSequence([s.seed, self.n_iter]).generate_state(1, np.uint64)
        self._generator.manual_seed(int(noise[0]) >> 1)
        with autocast(pixels.device, s.precision):
            targets, outputs = self.network(pixels.to(self._generator.device))
        loss = self.loss(targets, outputs)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _MAX_NORM)
        self.optimizer.step()
        self.n_iter += 1
        self.curves["loss_curve"].append(loss.detach())

    def loss(self, targets: list[torch.Tensor], outputs: list[torch.Tensor]) -> torch.Tensor:
        """Loss of a batch: the mean over groups of layers.

        Parameters
        ----------
        targets, outputs : lists of torch.Tensor of shape (B, C, h, w)

        Returns
        -------
        torch.Tensor of shape ()
        """
        s = self.settings
        share = min(s.discard * self.n_iter / max(1, s.discard_iter), s.discard)
        losses = [
            discarding_cosine_loss(target, output, share)
            for target, output in zip(targets, outputs, strict=True)
        ]
        return torch.stack(losses).mean()


def learning_rate(iteration: int, max_iter: int, lr: float, final_lr: float) -> float:
    """Learning rate of a step: a straight line up from 0, then half a cosine down.

    Parameters
    ----------
    iteration : int
        Counted from 0.
    max_iter : int
        Steps of the whole training, of which 100 are the rise, a tenth at most.
    lr, final_lr : float
        Highest and last rate.

    Returns
    -------
    float
    """
    warmup = min(_WARMUP, max_iter // _WARMUP_SHARE)
    if iteration < warmup:
        return lr * iteration / max(1, warmup - 1)
    done = (iteration - warmup) / (max_iter - warmup)
    return final_lr + 0.5 * (lr - final_lr) * (1 + math.cos(math.pi * done))
