"""Eq. 7: its value, its gradient, and where it could break."""

import pytest
import torch

from skad._learning.losses import relaxed_contrastive_loss

Z = torch.tensor([(0, 0), (3, 0), (0, 4)], dtype=torch.float64)
OMEGA = torch.tensor([(0.9, 0.8, 0.1), (0.8, 0.95, 0.3), (0.1, 0.3, 1.0)], dtype=torch.float64)


def closed_form(z: torch.Tensor, omega: torch.Tensor, m: float) -> torch.Tensor:
    """Gradient of Eq. 7 through the row means, derived by hand."""
    n = len(z)
    D = torch.cdist(z, z)
    mu = D.mean(dim=1, keepdim=True)
    delta = D / mu
    g = 2 * omega * delta - 2 * (1 - omega) * (m - delta).clamp_min(0)
    g.fill_diagonal_(0)
    G = (g / mu - (g * D).sum(dim=1, keepdim=True) / (n * mu**2)) / n
    H = (G + G.T) / (D + torch.eye(n, dtype=z.dtype))
    H.fill_diagonal_(0)
    return H.sum(dim=1, keepdim=True) * z - H @ z


def random_batch(n=20, p=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, p, dtype=torch.float64, generator=generator)
    return z, torch.rand(n, n, dtype=torch.float64, generator=generator)


def test_hand_check():
    assert relaxed_contrastive_loss(Z, OMEGA, 1.0).item() == pytest.approx(1.6148750472411184)
    assert relaxed_contrastive_loss(Z, OMEGA, 2.0).item() == pytest.approx(2.037325207860922)


@pytest.mark.parametrize("m", [0.5, 1.0, 2.0])
def test_gradient_passes_through_the_row_mean(m):
    z, omega = random_batch()
    z.requires_grad_(True)
    relaxed_contrastive_loss(z, omega, m).backward()
    torch.testing.assert_close(z.grad, closed_form(z.detach(), omega, m))


def test_scale_and_translation_do_not_matter():
    z, omega = random_batch()
    loss = relaxed_contrastive_loss(z, omega, 1.0)
    torch.testing.assert_close(relaxed_contrastive_loss(7 * z + 3, omega, 1.0), loss)


def test_duplicates_give_no_nan_and_the_limit_of_the_gradient():
    z, omega = random_batch(8, 3)
    twice = torch.cat([z, z]).requires_grad_(True)
    omega = omega.repeat(2, 2)
    relaxed_contrastive_loss(twice, omega, 1.0).backward()
    assert twice.grad.isfinite().all()
    near = torch.cat([z, z]).requires_grad_(True)
    # Duplicates attract nothing and repel nothing: compare with pairs whose omega is 1.
    omega = omega.clone()
    omega[torch.arange(16), torch.arange(16).roll(8)] = 1
    relaxed_contrastive_loss(near, omega, 1.0).backward()
    torch.testing.assert_close(near.grad, twice.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_patches(dtype):
    z = torch.full((5, 3), 0.3, dtype=dtype, requires_grad=True)
    loss = relaxed_contrastive_loss(z, torch.full((5, 5), 0.5, dtype=dtype), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(2.5)  # (1 - omega) m^2 a pair, over n
    assert (z.grad == 0).all()
