"""The losses: their values, their gradients, and where they could break."""

import pytest
import torch
import torch.nn.functional as F

from skad._learning import fast_losses, losses
from skad._learning.losses import cosine_distances, global_cosine_loss, regional_cosine_loss

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


@pytest.fixture(params=[losses, fast_losses], ids=["plain", "fast"])
def loss_of(request):
    return request.param.relaxed_contrastive_loss


def test_hand_check(loss_of):
    assert loss_of(Z, OMEGA, 1.0).item() == pytest.approx(1.6148750472411184)
    assert loss_of(Z, OMEGA, 2.0).item() == pytest.approx(2.037325207860922)


@pytest.mark.parametrize("m", [0.5, 1.0, 2.0])
def test_gradient_passes_through_the_row_mean(loss_of, m):
    z, omega = random_batch()
    z.requires_grad_(True)
    loss_of(z, omega, m).backward()
    torch.testing.assert_close(z.grad, closed_form(z.detach(), omega, m))


def test_scale_and_translation_do_not_matter(loss_of):
    z, omega = random_batch()
    loss = loss_of(z, omega, 1.0)
    torch.testing.assert_close(loss_of(7 * z + 3, omega, 1.0), loss)


def test_gradient_far_from_the_origin(loss_of):
    z, omega = random_batch(40, 16)
    z = (z.float() + 3000).requires_grad_()
    loss_of(z, omega.float(), 1.0).backward()
    exact = closed_form(z.detach().double(), omega, 1.0)
    assert (z.grad - exact).abs().max() < 1e-5 * exact.abs().max()


def test_gradient_scales_with_what_is_made_of_the_loss(loss_of):
    z, omega = random_batch()
    z.requires_grad_(True)
    (-3 * loss_of(z, omega, 1.0)).backward()
    torch.testing.assert_close(z.grad, -3 * closed_form(z.detach(), omega, 1.0))


def test_duplicates_give_no_nan_and_the_limit_of_the_gradient(loss_of):
    z, omega = random_batch(8, 3)
    twice = torch.cat([z, z]).requires_grad_(True)
    omega = omega.repeat(2, 2)
    loss_of(twice, omega, 1.0).backward()
    assert twice.grad.isfinite().all()
    near = torch.cat([z, z]).requires_grad_(True)
    # Duplicates attract nothing and repel nothing: compare with pairs whose omega is 1.
    omega = omega.clone()
    omega[torch.arange(16), torch.arange(16).roll(8)] = 1
    loss_of(near, omega, 1.0).backward()
    torch.testing.assert_close(near.grad, twice.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_patches(loss_of, dtype):
    z = torch.full((5, 3), 0.3, dtype=dtype, requires_grad=True)
    loss = loss_of(z, torch.full((5, 5), 0.5, dtype=dtype), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(2.5)  # (1 - omega) m^2 a pair, over n
    assert (z.grad == 0).all()


# ---- ReContrast -------------------------------------------------------------------------------------

LOSSES = {"global": global_cosine_loss, "regional": regional_cosine_loss}


def maps(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 6, 5, 4)
    return [torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for _ in range(2)]


def written_out(name, target, output, alpha):
    """As published: torch's cosine, and a hook that zeroes the gradient of easy positions."""
    if alpha is not None:
        distances = 1 - F.cosine_similarity(target, output)
        easy = (distances < distances.mean() + alpha * distances.std()).detach()[:, None]
        output = output.clone()
        output.register_hook(lambda gradient: gradient.masked_fill(easy, 0))
    if name == "global":
        target, output = target.flatten(1), output.flatten(1)
    return (1 - F.cosine_similarity(target, output)).mean()


@pytest.mark.parametrize("alpha", [None, -1.0, 0.3])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_cosine_losses_are_those_of_the_published_code(name, alpha, layout):
    """The gradient of the target, wanted without stop-gradient, passes at easy positions too."""
    pair = maps()
    expected = written_out(name, *pair, alpha)
    gradients = torch.autograd.grad(expected, pair)
    found = LOSSES[name](*(each.contiguous(memory_format=layout) for each in pair), alpha)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, pair), gradients)


@pytest.mark.parametrize("name", LOSSES)
def test_a_constant_target_gets_no_gradient(name):
    target, output = maps()
    LOSSES[name](target.detach(), output, 0.0).backward()
    assert target.grad is None
    assert output.grad is not None


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_is_upcast_before_anything_is_multiplied(name):
    pair = [each.detach().bfloat16().requires_grad_() for each in maps()]
    wide = [each.detach().float().requires_grad_() for each in pair]
    losses = [LOSSES[name](*each, 0.0) for each in (pair, wide)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for narrow, each in zip(pair, wide, strict=True):
        assert narrow.grad.dtype == torch.bfloat16
        torch.testing.assert_close(narrow.grad, each.grad.bfloat16())


@pytest.mark.parametrize("alpha", [None, 0.0])
@pytest.mark.parametrize("name", LOSSES)
def test_vectors_of_nothing(name, alpha):
    """They lie at distance 1 from everything, and no gradient breaks."""
    target, output = maps(torch.float32)
    with torch.no_grad():
        target[0] = 0
        output[1, :, 2] = 0
        output[2] = 0
    distances = cosine_distances(target, output)
    assert (distances[[0, 2]] == 1).all()
    assert (distances[1, 2] == 1).all()
    loss = LOSSES[name](target, output, alpha)
    loss.backward()
    assert loss.isfinite()
    assert target.grad.isfinite().all()
    assert output.grad.isfinite().all()
