"""Training of ReConPatch's linear embedding on cached patch features.

Two pairs of linear maps see every batch. The averaged pair judges how alike its patches are; the
trained pair moves them accordingly and is followed slowly by the averaged one. In the end only f,
the first map of the trained pair, is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from skad._learning.losses import relaxed_contrastive_loss
from skad._learning.similarity import similarity, squared_distances
from skad._torch.accelerators import adamp, recorded
from skad._torch.devices import has_room, is_plain_mode

# Epochs without progress after which a training with a tolerance stops.
PATIENCE = 5
# Patches that the bandwidth is measured on.
_SAMPLE = 2048


@dataclass(frozen=True)
class ReConPatchSettings:
    """Settings of the embedding and its training, under the paper's symbols.

    Parameters
    ----------
    embedding_dim : int
        Output dimension E of f.
    projection_dim : int or None
        Output dimension of g; None: no g.
    k, alpha, m
        Neighbours, weight of the pairwise similarity and margin (Eq. 2, 6 and 7).
    sigma : float or "auto"
        Bandwidth of Eq. 1. "auto": `SIGMA_SHARE` times the mean squared distance between projected
        patches before the training.
    gamma : float
        Momentum of the averages (Eq. 8).
    epochs, train_batch_size : int
        Passes over all patches, and patches per step.
    lr, weight_decay : float
        Of AdamP; the learning rate falls to 0 along a cosine, epoch by epoch.
    tol : float or None
        Stop after `PATIENCE` epochs in which the loss has not fallen by this much; None: never.
    init : {"orthogonal", "uniform"}
        Initial f and g: orthogonal maps that keep squared distances on average, or the uniform
        distribution of torch's linear layers.
    """

    embedding_dim: int = 512
    projection_dim: int | None = 512
    k: int = 5
    alpha: float = 0.5
    m: float = 1.0
    sigma: float | str = "auto"
    gamma: float = 0.99
    epochs: int = 3
    lr: float = 3e-4
    weight_decay: float = 1e-2
    train_batch_size: int = 512
    tol: float | None = None
    init: str = "orthogonal"


SIGMA_SHARE = 1.0


@dataclass(frozen=True)
class LearnedEmbedding:
    """Result of a training."""

    weight: np.ndarray
    """(E, d) float32, the matrix of f."""
    sigma: float
    """Bandwidth that was used."""
    losses: list[float]
    """Mean loss of every epoch."""


class LinearPair(nn.Module):
    """z = g(f(p)), both linear and without bias: distances would not see one.

    Parameters
    ----------
    dim : int
        Dimension d of a patch feature.
    settings : ReConPatchSettings
    generator : torch.Generator
        Draws the initial matrices; of the CPU.
    """

    def __init__(self, dim: int, settings: ReConPatchSettings, generator: torch.Generator) -> None:
        super().__init__()
        self.f = _linear(dim, settings.embedding_dim, settings.init, generator)
        self.g: nn.Module = nn.Identity()
        if settings.projection_dim is not None:
            self.g = _linear(
                settings.embedding_dim, settings.projection_dim, settings.init, generator
            )

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(n, d) patches -> (n, p) projections z."""
        return self.g(self.f(patches))


def _linear(n_in: int, n_out: int, init: str, generator: torch.Generator) -> nn.Linear:
    # Created without values: a layer's own initialisation would draw from the global generator.
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=False)
    with torch.no_grad():
        if init == "orthogonal":
            nn.init.orthogonal_(layer.weight, gain=max(1, n_in / n_out) ** 0.5, generator=generator)
        else:
            layer.weight.uniform_(-1, 1, generator=generator).mul_(n_in**-0.5)
    return layer


@torch.no_grad()
def follow(averaged: nn.Module, online: nn.Module, gamma: float) -> None:
    """Move averaged weights towards the trained ones (Eq. 8).

    Parameters
    ----------
    averaged, online : torch.nn.Module
        Of the same structure; the former is changed in place.
    gamma : float
        Fraction that stays, in [0, 1].
    """
    for mean, new in zip(averaged.parameters(), online.parameters(), strict=True):
        mean.lerp_(new, 1 - gamma)


def learn_embedding(
    features: np.ndarray,
    settings: ReConPatchSettings,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> LearnedEmbedding:
    """Train f on patch features.

    Parameters
    ----------
    features : ndarray of shape (N, d), float32
        Patches of all good images; may be a memory map.
    settings : ReConPatchSettings
    generator : torch.Generator
        Of the CPU; initial weights and the order of the patches follow from it.
    device : torch.device or str, default="cpu"
    progress : callable or None
        Called with the number of epochs done.

    Returns
    -------
    LearnedEmbedding

    Raises
    ------
    ValueError
        If there are no more than k patches, or the loss is no longer finite.
    """
    if min(len(features), settings.train_batch_size) <= settings.k:
        raise ValueError(
            f"k={settings.k} neighbours need batches of more than {settings.k} patches; there are "
            f"{len(features)} patches and train_batch_size is {settings.train_batch_size}."
        )
    online = LinearPair(features.shape[1], settings, generator)
    training = _Training(online.to(device), features, settings, generator)
    losses: list[float] = []
    for epoch in range(settings.epochs):
        losses.append(training.epoch())
        if not math.isfinite(losses[-1]):
            raise ValueError(
                f"the loss of epoch {epoch + 1} is {losses[-1]}: the training diverged. Lower lr "
                f"(now {settings.lr:g})."
            )
        if progress is not None:
            progress(epoch + 1)
        if settings.tol is not None and _stagnates(losses, settings.tol):
            break
    weight = online.f.weight.detach().float().cpu().numpy().copy()
    return LearnedEmbedding(weight, training.sigma, losses)


class _Training:
    """The two pairs of networks, the optimiser, and a pass over the patches."""

    def __init__(
        self,
        online: LinearPair,
        features: np.ndarray,
        settings: ReConPatchSettings,
        generator: torch.Generator,
    ) -> None:
        self.settings, self.generator = settings, generator
        self.online = online
        weight = online.f.weight
        # Copying batch by batch would keep a GPU waiting: where it has room, it gets all patches.
        home = weight.device if has_room(weight.device, features.nbytes) else torch.device("cpu")
        self.features = torch.from_numpy(features).to(home)
        self.averaged = deepcopy(online).requires_grad_(False)
        self.optimizer = adamp(
            online.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, T_max=max(1, settings.epochs)
        )
        self.sigma = self._bandwidth()
        self._loss = _loss()
        self._recorded_step = recorded(self._step, weight.device)

    @torch.no_grad()
    def _bandwidth(self) -> float:
        if self.settings.sigma != "auto":
            return float(self.settings.sigma)
        z = self.averaged(self._take(self._order()[:_SAMPLE]))
        spread = SIGMA_SHARE * float(squared_distances(z).mean())
        # Images without any structure: every pair is alike, whatever the bandwidth.
        return spread if spread > 0 else 1.0

    def epoch(self) -> float:
        """Visit every patch once; return the mean loss."""
        losses = [self.step(batch) for batch in self._batches()]
        self.schedule.step()
        return float(torch.stack(losses).mean())

    def step(self, patches: torch.Tensor) -> torch.Tensor:
        """Take one step of the optimiser on (n, d) patches, then of the averages; return the loss."""
        (loss,) = self._recorded_step(patches)
        return loss

    def _step(self, patches: torch.Tensor) -> tuple[torch.Tensor]:
        # May be recorded: the obligations stand in `skad._torch.cuda_graphs`.
        settings = self.settings
        with torch.no_grad():
            omega = similarity(
                self.averaged(patches), k=settings.k, alpha=settings.alpha, sigma=self.sigma
            )
        loss = self._loss(self.online(patches), omega, settings.m)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        follow(self.averaged, self.online, settings.gamma)
        return (loss.detach(),)

    def _batches(self) -> Iterator[torch.Tensor]:
        for rows in self._order().split(self.settings.train_batch_size):
            if len(rows) > self.settings.k:  # the k-th neighbour of a smaller rest is undefined
                yield self._take(rows)

    def _order(self) -> torch.Tensor:
        """All patches, shuffled by the CPU: every device sees the same order."""
        order = torch.randperm(len(self.features), generator=self.generator)
        return order.to(self.features.device)

    def _take(self, rows: torch.Tensor) -> torch.Tensor:
        weight = self.online.f.weight
        return self.features[rows].to(weight.device, weight.dtype)


def _loss() -> Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]:
    """Return Eq. 7: in plain mode with autograd's gradient, else with the one written out."""
    if is_plain_mode():
        return relaxed_contrastive_loss
    from skad._learning import fast_losses

    return fast_losses.relaxed_contrastive_loss


def _stagnates(losses: list[float], tol: float) -> bool:
    if len(losses) <= PATIENCE:
        return False
    return min(losses[-PATIENCE:]) > min(losses[:-PATIENCE]) - tol
