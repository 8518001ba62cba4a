"""Dinomaly's network, loss, schedule and steps, held to numbers of the authors' public code.

They were computed by github.com/guojiajeremy/Dinomaly, commit c5c76d01, in float64: models/uad.py
(ViTill), models/vision_transformer.py (bMlp, Block with LinearAttention2), optimizers/StableAdamW.py,
and global_cosine_hm_percent, WarmCosineScheduler and cal_anomaly_maps of utils.py; without dropout.
"""

import numpy as np
import pytest
import torch

from skad._learning import (
    DinomalySettings,
    DinomalyTraining,
    build_dinomaly,
    pair_distances,
    summed,
)
from skad._learning.dinomaly_network import Dropout, LinearAttention
from skad._learning.dinomaly_training import learning_rate
from skad._learning.losses import discarding_cosine_loss

GRID, PREFIX, WIDTH, LAYERS = (3, 3), 2, 128, 4


def encode(pixels):
    """Tokens of four layers, two of which stand for no place."""
    shape = (2, PREFIX + 9, WIDTH)
    count = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return [torch.sin(count * (0.37 + 0.1 * i)).reshape(shape) for i in range(LAYERS)], GRID


@pytest.fixture
def network():
    network = build_dinomaly(encode, WIDTH, LAYERS, 2, 0.0, torch.Generator()).double()
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            count = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((torch.sin(count * 0.7 + k) * 0.1).reshape(parameter.shape))
    return network


def test_two_steps_are_those_of_the_public_code(network):
    training = DinomalyTraining(network, DinomalySettings(max_iter=10_000), n_iter=500)
    parameters = list(network.parameters())
    assert len(parameters) == 52
    for loss, gradients, total, samples in (
        (
            0.9981988942830324,
            0.9316876108288707,
            58878.472542034775,
            (-0.03707101064544249, -0.10168969074156553, -0.06051429385222037),
        ),
        (
            0.9674956480240018,
            1.4807897762532667,
            58812.63773349865,
            (-0.0363139193200817, -0.10113685263036318, -0.061055680385271496),
        ),
    ):
        training.step(torch.zeros(2, 6, 6, 3))
        assert training.curves["loss_curve"][-1].item() == pytest.approx(loss, rel=1e-12)
        assert parameters[0].grad.abs().sum().item() == pytest.approx(gradients, rel=1e-9)
        assert sum(p.abs().sum().item() for p in parameters) == pytest.approx(total, rel=1e-12)
        found = [parameters[i].flatten()[j].item() for i, j in ((0, 5), (-2, 7), (8, 3))]
        assert found == pytest.approx(samples, rel=1e-9)
    with torch.no_grad():
        targets, outputs = network.eval()(torch.zeros(2, 6, 6, 3))
        image = summed(pair_distances(targets, outputs), (12, 12)) / 2
    assert image.shape == (2, 12, 12)
    assert image.max().item() == pytest.approx(0.9862811275442471, rel=1e-9)
    assert image.mean().item() == pytest.approx(0.9220616420239777, rel=1e-9)
    assert image[1, 3, 7].item() == pytest.approx(0.9549654753440958, rel=1e-9)


def test_the_rate_is_that_of_the_public_code():
    found = [learning_rate(i, 10_000, 2e-3, 2e-4) for i in (0, 1, 99, 100, 101, 500, 9999)]
    assert found == pytest.approx(
        [
            *(0.0, 2.0202020202020203e-05, 0.002, 0.002, 0.001999999954685012),
            *(0.0019927593315477157, 0.00020000004531498767),
        ],
        rel=1e-12,
    )
    assert learning_rate(0, 1, 2e-3, 2e-4) == 2e-3  # a short training has no rise
    assert learning_rate(9, 100, 2e-3, 2e-4) == 2e-3


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.999])
def test_easy_positions_hardly_count(share):
    rng = np.random.default_rng(0)
    target, output = (torch.tensor(rng.normal(size=(2, 5, 4, 3))) for _ in range(2))
    output.requires_grad_()
    loss = discarding_cosine_loss(target, output, share)
    plain = discarding_cosine_loss(target, output, 0.0)
    assert loss.item() == plain.item()
    some, whole = (torch.autograd.grad(x, output)[0] for x in (loss, plain))
    factors = (some / whole).mean(dim=1)
    n_hard = max(1, int(24 * (1 - share)))
    expected = [0.1] * (24 - n_hard) + [1.0] * n_hard
    np.testing.assert_allclose(np.sort(factors.flatten()), expected)
    distances = pair_distances([target], [output])[0].flatten()
    order = factors.flatten()[distances.argsort()]
    assert (order.diff() > -1e-6).all()  # the best reconstructed are those that hardly count


def test_linear_attention_by_brute_force():
    attention = LinearAttention(8, 2).double()
    x = torch.randn(1, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    qkv = attention.qkv(x)[0].reshape(5, 3, 2, 4)
    heads = []
    for head in range(2):
        q, k, v = (qkv[:, i, head] for i in range(3))
        weights = (torch.nn.functional.elu(q) + 1) @ (torch.nn.functional.elu(k) + 1).T
        heads.append(weights / weights.sum(dim=1, keepdim=True) @ v)
    torch.testing.assert_close(attention(x)[0], attention.proj(torch.cat(heads, dim=1)))


def test_dropout_draws_from_its_own_generator():
    x, noise = torch.ones(4, 1000), Dropout(0.2)
    noise.generator = torch.Generator().manual_seed(3)
    before = torch.get_rng_state()
    dropped = noise(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert (dropped == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    noise.generator.manual_seed(3)
    assert torch.equal(noise(x), dropped)
    assert torch.equal(noise.eval()(x), x)


def test_a_training_that_goes_on_is_as_one_that_never_stopped():
    settings = DinomalySettings(max_iter=20, discard_iter=4, seed=5)

    def make():
        generator = torch.Generator().manual_seed(0)
        return build_dinomaly(encode, WIDTH, LAYERS, 2, 0.3, generator).double()

    whole = DinomalyTraining(make(), settings)
    for _ in range(6):
        whole.step(torch.zeros(2, 6, 6, 3))
    first = DinomalyTraining(make(), settings)
    for _ in range(3):
        first.step(torch.zeros(2, 6, 6, 3))
    network = make()
    network.load_state_dict(first.network.state_dict())
    second = DinomalyTraining(network, settings, first.n_iter, first.state())
    for _ in range(3):
        second.step(torch.zeros(2, 6, 6, 3))
    losses = first.curves["loss_curve"] + second.curves["loss_curve"]
    assert torch.equal(torch.stack(losses), torch.stack(whole.curves["loss_curve"]))


@pytest.mark.parametrize(
    ("n", "expected"), [(1, [(0, 4)]), (2, [(0, 2), (2, 4)]), (3, [(0, 1), (1, 2), (2, 4)])]
)
def test_groups_of_layers(n, expected):
    network = build_dinomaly(encode, WIDTH, LAYERS, n, 0.0, None)
    assert [(g.start, g.stop) for g in network.groups] == expected
