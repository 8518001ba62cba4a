"""AdamW whose steps are shortened where gradients are larger than expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class StableAdamW(torch.optim.Optimizer):
    """AdamW with the largest second moment so far, and update clipping.

    A parameter's step is divided by the root mean square of gradient / sqrt(second moment), where that
    exceeds 1: after a long calm the second moment lags behind, and a plain step would be far too long.

    Parameters
    ----------
    parameters : iterable of torch.nn.Parameter
    lr : float
        Learning rate; ``param_groups[i]["lr"]`` may be changed between steps.
    weight_decay : float
        Decoupled, times the learning rate.
    betas : tuple of two floats, default=(0.9, 0.999)
        Of the first and the second moment.
    eps : float, default=1e-10
        Added to the root of the second moment.

    References
    ----------
    Wortsman et al., "Stable and low-precision training for large-scale vision-language models",
    NeurIPS 2023 (the clipping); Reddi et al., "On the Convergence of Adam and Beyond", ICLR 2018 (the
    largest moment); both together as in the public code of Dinomaly.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-10,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step; parameters without a gradient stay as they are."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(
        self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            for slot in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
                state[slot] = torch.zeros_like(parameter)
        state["step"] += 1
        n = int(state["step"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        mean, square, largest = (
            state[slot] for slot in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
        )
        mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        torch.maximum(largest, square, out=largest)
        root = (largest.sqrt() / (1 - beta2**n) ** 0.5).add_(group["eps"])
        surprise = (gradient / root).square().mean().sqrt().clamp_min(1)
        parameter.sub_(mean / root * (group["lr"] / (1 - beta1**n) / surprise))
