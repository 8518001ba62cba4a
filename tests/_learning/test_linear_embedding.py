"""The training loop: what is trained, what follows, what it returns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from adamp import AdamP
from recordings import NoQuestions, addresses

from skad._learning import ReConPatchSettings, learn_embedding
from skad._learning.linear_embedding import LinearPair, _Training, follow
from skad._learning.losses import relaxed_contrastive_loss
from skad._learning.similarity import similarity
from skad._torch.capturable_adamp import CapturableAdamP

SETTINGS = ReConPatchSettings(
    embedding_dim=6, projection_dim=4, k=3, epochs=3, lr=1e-2, train_batch_size=16, sigma=2.0
)
FEATURES = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)


def learn(features=FEATURES, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    return learn_embedding(features, replace(SETTINGS, **changes), generator)


def training(dtype=torch.float64, **changes):
    settings = replace(SETTINGS, **changes)
    generator = torch.Generator().manual_seed(0)
    online = LinearPair(8, settings, generator).to(dtype)
    return _Training(online, FEATURES.astype(np.float64), settings, generator)


def test_one_step_as_the_paper_writes_it():
    run = training()
    patches = torch.from_numpy(FEATURES[:16]).double()
    F, G = (p.detach().clone().requires_grad_(True) for p in run.online.parameters())
    optimizer = AdamP([F, G], lr=SETTINGS.lr, weight_decay=SETTINGS.weight_decay)
    F_bar, G_bar = F.detach().clone(), G.detach().clone()
    for _ in range(2):  # at the second step the averages differ from the trained maps
        omega = similarity(patches @ F_bar.T @ G_bar.T, k=3, alpha=0.5, sigma=2.0)
        loss = relaxed_contrastive_loss(patches @ F.T @ G.T, omega, 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        F_bar = 0.99 * F_bar + 0.01 * F.detach()
        G_bar = 0.99 * G_bar + 0.01 * G.detach()
        torch.testing.assert_close(run.step(patches), loss.detach())
    for mine, expected in zip(run.online.parameters(), (F, G), strict=True):
        torch.testing.assert_close(mine, expected)
    for mine, expected in zip(run.averaged.parameters(), (F_bar, G_bar), strict=True):
        torch.testing.assert_close(mine, expected)


def test_averages_follow_and_are_not_optimised():
    run = training()
    optimised = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in run.online.parameters()}
    assert not any(p.requires_grad for p in run.averaged.parameters())


@pytest.mark.parametrize(
    ("gamma", "expected"), [(0.99, (0.99, -1.94)), (0.0, (0, 4)), (1, (1, -2))]
)
def test_moving_average(gamma, expected):
    mean, new = (torch.nn.Linear(2, 1, bias=False).double() for _ in range(2))
    mean.weight.data.copy_(torch.tensor([[1.0, -2.0]]))
    new.weight.data.copy_(torch.tensor([[0.0, 4.0]]))
    follow(mean, new, gamma)
    np.testing.assert_allclose(mean.weight.detach()[0], expected, atol=1e-12)


def test_rate_falls_along_a_cosine_epoch_by_epoch():
    run = training(epochs=4)
    rates = []
    for _ in range(4):
        rates.append(run.optimizer.param_groups[0]["lr"])
        run.epoch()
    np.testing.assert_allclose(rates, 1e-2 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2)


def test_every_patch_is_visited_once_an_epoch():
    run = training()
    visited = torch.cat(list(run._batches()))
    # 50 = 3 x 16 + 2: a rest of no more than k patches has no k-th neighbour.
    assert len(visited) == 48
    assert len(torch.unique(visited, dim=0)) == 48
    assert sum(len(batch) for batch in training(train_batch_size=20)._batches()) == 50


def test_training_lowers_the_loss():
    losses = learn(epochs=20).losses
    assert len(losses) == 20
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_similar_patches_gather():
    """Groups that differ in some directions grow tighter, relative to the distance between them."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(12), 8)
    centres = np.zeros((12, 8))
    centres[:, :3] = 3 * rng.normal(size=(12, 3))
    features = (centres[groups] + rng.normal(size=(96, 8))).astype(np.float32)

    def tightness(epochs):
        weight = learn(features, epochs=epochs, alpha=1.0, sigma="auto", train_batch_size=96).weight
        z = features @ weight.T
        squares = ((z[:, None] - z) ** 2).sum(-1)
        return squares[groups[:, None] == groups].mean() / squares.mean()

    assert tightness(epochs=40) < 0.95 * tightness(epochs=0)


def test_repeatable_and_deaf_to_the_global_generator():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = learn()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = learn()
    np.testing.assert_array_equal(first.weight, second.weight)
    assert first.losses == second.losses
    assert not np.array_equal(first.weight, learn(seed=1).weight)


@pytest.mark.parametrize("embedding_dim", [3, 8, 12])
def test_orthogonal_start_keeps_squared_distances(embedding_dim):
    weight = learn(epochs=0, init="orthogonal", embedding_dim=embedding_dim).weight
    mapped = FEATURES @ weight.T
    before = ((FEATURES[:, None] - FEATURES) ** 2).sum(-1)
    after = ((mapped[:, None] - mapped) ** 2).sum(-1)
    if embedding_dim >= 8:
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    assert after.sum() == pytest.approx(before.sum(), rel=0.5)


def test_uniform_start_is_that_of_torch():
    weight = learn(epochs=0, init="uniform", embedding_dim=400).weight
    assert np.abs(weight).max() <= 8**-0.5
    assert weight.std() == pytest.approx(8**-0.5 / 3**0.5, rel=0.05)


def test_without_g():
    learned = learn(projection_dim=None)
    assert learned.weight.shape == (6, 8)
    assert learned.weight.dtype == np.float32


def test_measured_bandwidth():
    learned = learn(epochs=0, sigma="auto", embedding_dim=8, projection_dim=None)
    squares = ((FEATURES[:, None] - FEATURES) ** 2).sum(-1)
    assert learned.sigma == pytest.approx(squares.mean(), rel=1e-4)
    assert learn(sigma=3).sigma == 3.0


def test_identical_patches_change_nothing():
    same = np.full((40, 8), 0.7, dtype=np.float32)
    learned = learn(same, sigma="auto", weight_decay=0.0)
    assert np.isfinite(learned.losses).all()
    np.testing.assert_array_equal(learned.weight, learn(same, epochs=0).weight)


def test_stops_early_only_where_asked_to():
    assert len(learn(epochs=12, lr=1e-9).losses) == 12
    assert len(learn(epochs=12, lr=1e-9, tol=0.5).losses) == 6
    assert len(learn(epochs=12, tol=0.0, lr=1e-2).losses) > 6


def test_divergence_is_an_error():
    features = FEATURES.copy()
    features[3, 3] = np.inf
    with pytest.raises(ValueError, match=r"epoch 1 is nan.*Lower lr"):
        learn(features)


@pytest.mark.parametrize("changes", [{"k": 50}, {"train_batch_size": 3}])
def test_too_few_patches_for_k(changes):
    with pytest.raises(ValueError, match="neighbours"):
        learn(**changes)


def test_a_step_may_be_recorded(monkeypatch):
    """Nothing moves, and nothing is asked of the device, with the optimiser that a GPU gets."""
    monkeypatch.setattr("skad._torch.accelerators._records", lambda device: True)
    run = training(dtype=torch.float32)
    assert isinstance(run.optimizer, CapturableAdamP)
    patches = torch.from_numpy(FEATURES[:16])
    run.step(patches)
    before, averages = addresses(run.online, run.optimizer), addresses(run.averaged)
    assert {"0.lr", "0.step", "0.exp_avg", "1.exp_avg_sq"} < before.keys()
    for _ in range(3):
        with NoQuestions():
            run.step(patches)
        run.schedule.step()
    assert addresses(run.online, run.optimizer) == before
    assert addresses(run.averaged) == averages


def test_plain_mode_trains_the_same_with_plain_parts(monkeypatch):
    fast = learn(sigma="auto")
    monkeypatch.setenv("SKAD_PLAIN", "1")
    run = training()
    assert run._loss is relaxed_contrastive_loss
    assert type(run.optimizer) is AdamP
    plain = learn(sigma="auto")
    np.testing.assert_allclose(plain.losses, fast.losses, rtol=1e-5)
    np.testing.assert_allclose(plain.weight, fast.weight, atol=1e-5)


def test_progress_counts_epochs():
    done = []
    learn_embedding(FEATURES, SETTINGS, torch.Generator().manual_seed(0), progress=done.append)
    assert done == [1, 2, 3]
