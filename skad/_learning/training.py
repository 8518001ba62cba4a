"""Training of a network: one step at a time, resumable at any of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch


class Training(ABC):
    """Trains a network, batch by batch.

    Parameters
    ----------
    network : torch.nn.Module
    optimizer : torch.optim.Optimizer
    n_iter : int, default=0
        Steps that the network has seen before.
    state : dict of ndarray, default=None
        What :meth:`state` returned after them; None: moments of the optimiser start at 0.

    Attributes
    ----------
    n_iter : int
        Steps seen in all.
    curves : dict of str to list of torch.Tensor of shape ()
        Per step taken here: its loss, as "loss_curve", and what else a training tells, by name.
    """

    # What the optimiser keeps of each parameter; the number of steps first.
    _slots: tuple[str, ...] = ("step", "exp_avg", "exp_avg_sq")

    def __init__(
        self,
        network: Any,
        optimizer: torch.optim.Optimizer,
        n_iter: int = 0,
        state: dict[str, np.ndarray] | None = None,
    ) -> None:
        self.network, self.optimizer, self.n_iter = network, optimizer, n_iter
        self.curves: dict[str, list[torch.Tensor]] = {"loss_curve": []}
        if state:
            self._restore(state)
        network.train()

    @abstractmethod
    def step(self, pixels: torch.Tensor) -> None:
        """Take one step.

        Parameters
        ----------
        pixels : torch.Tensor of shape (B, H, W, 3)
            On the network's device, or on the host.
        """

    def has_diverged(self) -> bool:
        """Whether the last loss is not finite; waits for the device."""
        losses = self.curves["loss_curve"]
        return bool(losses) and not math.isfinite(losses[-1].item())

    def state(self) -> dict[str, np.ndarray]:
        """Moments of the optimiser, for a later training.

        Returns
        -------
        dict of ndarray
            Empty before the first step; zeros after a reset.
        """
        moments = self.optimizer.state
        return {
            f"{i}.{slot}": moments[parameter][slot].detach().cpu().numpy().copy()
            for i, parameter in enumerate(self._parameters())
            if parameter in moments
            for slot in self._slots
        }

    def _restore(self, state: dict[str, np.ndarray]) -> None:
        step, *moments = self._slots
        for i, parameter in enumerate(self._parameters()):
            if f"{i}.{step}" in state:
                # Moments in the parameter's own memory layout, which the fused step requires.
                self.optimizer.state[parameter] = {
                    step: torch.tensor(state[f"{i}.{step}"]).to(parameter.device),
                    **{
                        slot: torch.empty_like(parameter).copy_(torch.tensor(state[f"{i}.{slot}"]))
                        for slot in moments
                    },
                }

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]
