"""A training step of ReContrast against its formulas, the variants, and going on from a state."""

import copy

import numpy as np
import pytest
import tiny_resnet  # noqa: F401  registers the backbone
import torch
import torch.nn.functional as F
from recordings import NoQuestions, addresses

from skad._features import load_backbone
from skad._learning import ReContrastSettings, ReContrastTraining, build_network, decoder_design
from skad._learning import recontrast_training as module
from skad._learning.recontrast_training import feature_diversity
from skad._learning.stable_norm import make_stable


def make_network(pairs="cross", encoder=True, dtype=torch.float64, backbone="tiny_resnet"):
    frozen = load_backbone(backbone, "pretrained", (1, 2, 3), torch.device("cpu"))
    frozen = copy.deepcopy(frozen).to(dtype)
    trained = frozen.trainable_copy().to(dtype) if encoder else None
    design = decoder_design(frozen.body, frozen.channels)
    network = build_network(frozen, trained, design, pairs, torch.Generator().manual_seed(0))
    return network.to(dtype)


def pixels(n=3, size=32, dtype=torch.float64, seed=1):
    return torch.rand(
        (n, size, size, 3), generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def literal_loss(network, x, alpha):
    """The paper's loss with the authors' gradient hook, written out."""
    trained = network.encoder(x)
    with torch.no_grad():
        frozen = network.frozen.eval()(x)
    both = [torch.cat([e, f]) for e, f in zip(trained, frozen, strict=True)]
    decoded = network.decoder(network.bottleneck(both))
    n, total = len(x), 0
    for target_maps, heads, half in (
        (frozen, network.heads_frozen, slice(0, n)),
        (trained, network.heads_trained, slice(n, None)),
    ):
        for target, head, y in zip(target_maps, heads, decoded, strict=True):
            output, target = head(y)[half], target.detach()
            point = 1 - F.cosine_similarity(target, output.detach(), dim=1)
            threshold = point.mean() + alpha * point.std(correction=1)
            easy = (point < threshold)[:, None]
            output.register_hook(lambda g, easy=easy: torch.where(easy, torch.zeros_like(g), g))
            dot = (target * output).sum(dim=(1, 2, 3))
            norms = (
                target.square().sum(dim=(1, 2, 3)).sqrt()
                * output.square().sum(dim=(1, 2, 3)).sqrt()
            )
            total = total + 0.5 * (1 - dot / norms).mean()
    return total


@pytest.mark.parametrize("done", [0, 5, 90], ids=["first", "rising", "level"])
def test_a_step_is_the_formula(done):
    settings = ReContrastSettings(
        max_iter=100, lr=2e-3, encoder_lr=1e-4, weight_decay=1e-2, bn="train"
    )
    network = make_network()
    reference = copy.deepcopy(network).train()
    training = ReContrastTraining(network, settings, n_iter=done)
    training.step(pixels())

    alpha = min(-3 + 4 * done / 10, 1)
    loss = literal_loss(reference, pixels(), alpha)
    first = training.curves["loss_curve"][0].item()  # kept in float32
    assert first == pytest.approx(loss.item(), abs=1e-6)
    loss.backward()
    moved = dict(network.named_parameters())
    for name, p in reference.named_parameters():
        lr = 1e-4 if name.startswith("encoder") else 2e-3
        if p.grad is None:
            # The deepest layer's neighbours that nothing depends on do not move at all.
            assert torch.equal(moved[name], p)
            continue
        m, v = 0.1 * p.grad, 0.001 * p.grad**2
        step = lr * (m / 0.1) / ((v / 0.001).sqrt() + 1e-8)
        expected = p.detach() * (1 - lr * 1e-2) - step
        # Where a gradient is nothing but rounding, Adam still takes a whole step into its direction.
        certain = p.grad.abs() > 1e-9
        np.testing.assert_allclose(
            moved[name].detach()[certain], expected[certain], atol=1e-7, err_msg=name
        )


def test_buffers_follow_the_batch():
    network = make_network()
    training = ReContrastTraining(network, ReContrastSettings(max_iter=10, bn="train"))
    norm, frozen = network.encoder.body.model.bn1, network.frozen.body.model.bn1
    before = frozen.running_mean.clone()
    training.step(pixels())
    assert not torch.equal(norm.running_mean, before)
    assert torch.equal(frozen.running_mean, before)


def test_eval_norms_keep_their_statistics_but_learn():
    network = make_network()
    training = ReContrastTraining(network, ReContrastSettings(max_iter=10, bn="eval"))
    norm = network.encoder.body.model.bn1
    mean, weight = norm.running_mean.clone(), norm.weight.detach().clone()
    training.step(pixels())
    assert torch.equal(norm.running_mean, mean)
    assert not torch.equal(norm.weight, weight)


def run(steps=8, seed=1, **settings):
    """Losses and diversity over a training on one small batch."""
    encoder = settings.pop("encoder", True)
    pairs = settings.pop("pairs", "cross")
    # Wide enough to learn.
    network = make_network(pairs, encoder, dtype=torch.float32, backbone="skad_nano")
    if settings.get("bn") == "stable":
        make_stable(network.encoder)
    training = ReContrastTraining(network, ReContrastSettings(max_iter=steps, **settings), n_iter=0)
    x = pixels(4, dtype=torch.float32, seed=seed)
    for _ in range(steps):
        training.step(x)
    return tuple(map(torch.stack, training.curves.values()))


@pytest.mark.parametrize(
    "settings",
    [
        {"pairs": "own", "encoder": False, "hard_mining": False, "loss": "regional"},
        {"pairs": "own", "encoder": False, "hard_mining": False},
        {"pairs": "own", "encoder": False},
        {"pairs": "own", "hard_mining": False},
        {"pairs": "own", "hard_mining": False, "stop_gradient": False},
        {"hard_mining": False, "stop_gradient": False},
        {"hard_mining": False, "loss": "regional"},
        {"hard_mining": False},
        {},
        {"bn": "train"},
        {"bn": "stable"},
        {"precision": "bfloat16"},
    ],
    ids=["A", "B", "B+hm", "D", "C", "C+cp", "E-gl", "E", "full", "eval", "stable", "bfloat16"],
)
def test_every_configuration_learns(settings):
    losses, diversity = run(**settings)
    assert torch.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
    if not settings.get("encoder", True):
        torch.testing.assert_close(diversity, diversity[:1].expand(8))  # a frozen encoder


def test_without_stop_gradient_the_encoder_makes_it_easy():
    """Config C: features lose their diversity; with the stop-gradient they keep it (section 2.3)."""
    settings = {"pairs": "own", "hard_mining": False, "encoder_lr": 1e-3}
    _, kept = run(**settings)
    _, lost = run(**settings, stop_gradient=False)
    assert lost[-1] / lost[0] < kept[-1] / kept[0]


def test_stop_gradient_leaves_targets_alone():
    network = make_network("own")
    training = ReContrastTraining(network, ReContrastSettings(max_iter=5))
    target = [torch.rand(2, 4, 3, 3, requires_grad=True) for _ in range(3)]
    output = [torch.rand(2, 4, 3, 3, requires_grad=True) for _ in range(3)]
    training.loss(target, output).backward()
    assert all(t.grad is None for t in target)
    assert all(o.grad is not None for o in output)


def test_going_on_is_as_if_never_stopped():
    batches = [pixels(3, dtype=torch.float32, seed=i) for i in range(4)]
    settings = ReContrastSettings(max_iter=4)
    whole = ReContrastTraining(make_network(dtype=torch.float32), settings)
    for x in batches:
        whole.step(x)
    first = ReContrastTraining(make_network(dtype=torch.float32), settings)
    for x in batches[:2]:
        first.step(x)
    network = make_network(dtype=torch.float32)
    network.load_state_dict(first.network.state_dict())
    second = ReContrastTraining(network, settings, n_iter=2, state=first.state())
    for x in batches[2:]:
        second.step(x)
    assert second.n_iter == 4
    expected = whole.network.state_dict()
    assert all(torch.equal(tensor, expected[n]) for n, tensor in network.state_dict().items())


def test_stable_training_forgets_its_moments(monkeypatch):
    monkeypatch.setattr(module, "RESET_EVERY", 2)
    network = make_network(dtype=torch.float32)
    make_stable(network.encoder)
    training = ReContrastTraining(network, ReContrastSettings(max_iter=9, bn="stable"))
    states = []
    for _ in range(3):
        training.step(pixels(2, dtype=torch.float32))
        states.append(training.state())
    assert states[0].keys() == states[1].keys() == states[2].keys()
    assert not any(moments.any() for moments in states[1].values())
    for name in states[0]:
        if name.endswith(".step"):
            assert states[2][name] == states[0][name] == 1


def test_step_after_a_reset_is_a_first_step(monkeypatch):
    """Moments of 0 and no moments at all give the same step."""
    monkeypatch.setattr(module, "RESET_EVERY", 2)
    batches = [pixels(2, dtype=torch.float32, seed=i) for i in range(3)]
    settings = ReContrastSettings(max_iter=9, bn="stable")
    networks = [make_network(dtype=torch.float32) for _ in range(2)]
    for network in networks:
        make_stable(network.encoder)
    whole = ReContrastTraining(networks[0], settings)
    for x in batches[:2]:
        whole.step(x)
    networks[1].load_state_dict(networks[0].state_dict())
    fresh = ReContrastTraining(networks[1], settings, n_iter=2)
    for training in (whole, fresh):
        training.step(batches[2])
    expected = networks[0].state_dict()
    for name, tensor in networks[1].state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("params", [{"bn": "train"}, {"bn": "stable"}, {"loss": "regional"}])
def test_a_step_may_be_recorded(monkeypatch, params):
    """Nothing moves, resets of the optimiser included, and nothing is asked of the device."""
    monkeypatch.setattr(module, "RESET_EVERY", 3)
    network = make_network(dtype=torch.float32)
    make_stable(network.encoder)
    training = ReContrastTraining(network, ReContrastSettings(max_iter=9, **params))
    training.step(pixels(2, dtype=torch.float32))
    before, level = addresses(network, training.optimizer), training._level.data_ptr()
    for _ in range(3):
        with NoQuestions():
            training.step(pixels(2, dtype=torch.float32))
    assert addresses(network, training.optimizer) == before
    assert training._level.data_ptr() == level
    assert not training.network.frozen.training


def test_diversity():
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(1, 8, 1, 1, generator=generator).expand(2, 8, 4, 4)
    scale = 1 + torch.rand(2, 1, 4, 4, generator=generator)
    assert feature_diversity(one * scale).item() == pytest.approx(
        0, abs=1e-6
    )  # lengths do not count
    spread = torch.randn(64, 8, 8, 8, generator=generator)
    # Random directions: the variance of a coordinate is 1 / C.
    assert feature_diversity(spread).item() == pytest.approx(8**-0.5, rel=0.02)
