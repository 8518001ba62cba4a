"""The papers' formulas against the shared file of float64 test vectors, group by group."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adamp import AdamP
from sklearn.metrics import roc_auc_score

from skad._bank import MemoryBank, greedy_k_center, mean_of_nearest, reweight
from skad._features.embedding import AdaptiveEmbedding, concat, pooling_bins
from skad._heatmaps import render
from skad._learning.linear_embedding import follow
from skad._learning.losses import relaxed_contrastive_loss
from skad._learning.similarity import (
    contextual_similarity,
    neighbourhoods,
    pairwise_similarity,
    similarity,
    squared_distances,
)
from skad.metrics import discriminability


@pytest.fixture(scope="module")
def vectors(shared):
    path = shared / "spec" / "vectors.json"
    if not path.is_file():
        pytest.skip("no file of test vectors")
    return json.loads(path.read_text())


def maps(group):
    return [torch.tensor(group[k], dtype=torch.float64)[None] for k in ("level2", "level3")]


def test_adaptive_avg_pool1d(vectors):
    group = vectors["adaptive_avg_pool1d"]
    bins = pooling_bins(len(group["input"]), group["m"])
    assert [list(pair) for pair in bins] == group["bins"]
    assert [np.mean(group["input"][a:b]) for a, b in bins] == group["output"]


def test_patchify(vectors):
    group = vectors["patchify_3x3"]
    pooled = concat([torch.tensor(group["feature_map"], dtype=torch.float64)[None]], 3)
    np.testing.assert_allclose(
        pooled[0].permute(2, 0, 1), group["mean_3x3_zero_padded"], atol=1e-12
    )


def test_embeddings(vectors):
    group = vectors["embed_code_style"]
    dims = group["pretrain_dim"], group["target_dim"]
    embedding = AdaptiveEmbedding([4, 8], 3, *dims, dtype=torch.float64)(maps(group))
    np.testing.assert_allclose(embedding.flatten(0, 2), group["embedding_row_major"], atol=1e-12)
    group = vectors["embed_paper_style"]
    embedding = concat(maps(group), 3).flatten(0, 2)
    np.testing.assert_allclose(embedding, group["embedding_zero_padded"], atol=1e-12)


def test_coreset(vectors):
    group = vectors["coreset_k_center"]
    X = torch.tensor(group["points"], dtype=torch.float64)
    distances = torch.cdist(X, X)
    anchors = {
        "exact_row_norm": distances.square().sum(1).sqrt(),
        "approx_mean_of_starts_1_5_6": distances[:, group["start_points_for_approx"]].mean(1),
    }
    selected = group["selected"]
    assert greedy_k_center(X, group["M"], start=0).tolist() == selected["textbook_start0"]
    for name, anchor in anchors.items():
        assert greedy_k_center(X, group["M"], anchor=anchor).tolist() == selected[name]
    group = vectors["coreset_1d_hand"]
    X = torch.tensor(group["points"], dtype=torch.float64)
    assert greedy_k_center(X, 3, start=0).tolist() == group["textbook_start0_M3"]
    anchor = torch.tensor(group["approx_initial_anchor"], dtype=torch.float64)
    assert greedy_k_center(X, 3, anchor=anchor).tolist() == group["approx_starts_0_1_2_M3"]


def test_nearest_neighbour_scores(vectors):
    group = vectors["nn_scores"]
    bank = MemoryBank(group["bank"], sources=range(len(group["bank"])))
    for k, squared, name in (
        (1, False, "nearest_euclidean"),
        (1, True, "nearest_squared"),
        (3, False, "mean_of_3_euclidean"),
        (3, True, "mean_of_3_squared"),
    ):
        distances, _ = bank.search(group["queries"], k)
        # The bank holds float32: 0.2 and 0.1 are rounded once.
        np.testing.assert_allclose(mean_of_nearest(distances, squared), group[name], rtol=1e-6)


@pytest.mark.parametrize("name", ["reweighting_eq7", "reweighting_order_change"])
def test_re_weighting(vectors, name):
    group = vectors[name]
    expected = group.get("include_self") or group["results"]
    bank = MemoryBank(group["bank"], sources=range(len(group["bank"])))
    distances, ids = bank.search(group["queries"], 1)
    weights = bank.reweight(group["queries"], distances, ids, group["b"])
    np.testing.assert_allclose(weights, [row["weight"] for row in expected], rtol=1e-6)
    scores = weights * distances[:, 0]
    np.testing.assert_allclose(scores, [row["score"] for row in expected], rtol=1e-6)


def test_re_weighting_does_not_overflow(vectors):
    group = vectors["reweighting_stability"]
    weight = reweight(group["s"], group["distances_to_Nb_of_nearest"])
    np.testing.assert_allclose(weight, group["weight"], rtol=1e-12)


def test_heatmap(vectors):
    group = vectors["heatmap"]
    grid, size = np.array(group["patch_scores"]), group["size"][0]
    np.testing.assert_allclose(render(grid, size, 4.0), group["heatmap_euclidean"], rtol=1e-6)
    np.testing.assert_allclose(render(grid**2, size, 4.0), group["heatmap_squared"], rtol=1e-6)
    impulse = torch.zeros(1, 1, 65)
    impulse[0, 0, 32] = 1
    one_axis = render(np.ones((1, 1)) @ impulse[0].double().numpy(), 65, 4.0)[0]
    np.testing.assert_allclose(one_axis[32:49], group["gaussian_sigma4_taps_0_to_16"], rtol=1e-6)


def test_bilinear(vectors):
    group = vectors["bilinear"]
    grid = np.array(group["input"])
    np.testing.assert_allclose(render(grid, 4, 0.0), group["out_4x4_align_false"], rtol=1e-6)
    np.testing.assert_allclose(render(grid, 4, 0.0, True), group["out_4x4_align_true"], rtol=1e-6)
    aligned = F.interpolate(torch.tensor(grid)[None, None], size=(4, 4), mode="bilinear")
    np.testing.assert_allclose(aligned[0, 0], group["out_4x4_align_false"], atol=1e-12)


def test_auroc_with_ties(vectors):
    group = vectors["auroc_ties"]
    assert roc_auc_score(group["y"], group["s"]) == pytest.approx(group["auroc"], abs=1e-12)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def test_similarities(vectors):
    group = vectors["contextual_similarity"]
    z = tensor(group["z"])
    squares = squared_distances(z)
    np.testing.assert_allclose(squares, group["squared_distances"], atol=1e-12)
    pairwise = pairwise_similarity(squares, group["sigma"])
    np.testing.assert_allclose(pairwise, group["pairwise"], atol=1e-12)
    full, half = neighbourhoods(squares, 4)
    np.testing.assert_array_equal(full, group["k4"]["N_k"])
    np.testing.assert_array_equal(half, group["k4"]["N_half"])
    for k in (3, 4, 5):
        omega = contextual_similarity(squares, k)
        np.testing.assert_allclose(omega, group[f"k{k}"]["contextual"], atol=1e-12)
    omega = contextual_similarity(squares, 4).numpy()
    for misreading in (name for name in group if name.startswith("wrong")):
        assert np.abs(omega - group[misreading]).max() > 0.1
    omega = similarity(z, k=4, alpha=0.5, sigma=group["sigma"])
    np.testing.assert_allclose(omega, group["omega_alpha_half_k4"], atol=1e-12)


def test_neighbourhoods_with_ties(vectors):
    group = vectors["contextual_ties"]
    full, _ = neighbourhoods(squared_distances(tensor(group["z"])), group["k"])
    np.testing.assert_array_equal(full, group["threshold_rule_N_k"])


def test_relaxed_contrastive_loss(vectors):
    group = vectors["relaxed_contrastive_3pt"]
    z, omega = tensor(group["z"]).requires_grad_(True), tensor(group["omega"])
    loss = relaxed_contrastive_loss(z, omega, group["margin"])
    loss.backward()
    np.testing.assert_allclose(loss.item(), group["loss_eq7_with_self_pairs"], atol=1e-12)
    np.testing.assert_allclose(z.grad, group["grad_z_full"], atol=1e-12)
    assert np.abs(z.grad.numpy() - group["grad_z_mean_detached"]).max() > 0.1
    wide = relaxed_contrastive_loss(z, omega, 2.0)
    np.testing.assert_allclose(wide.item(), group["margin2"]["loss"], atol=1e-12)


def linear(weight):
    layer = torch.nn.Linear(len(weight[0]), len(weight), bias=False).double()
    layer.weight.data.copy_(tensor(weight))
    return layer


def test_moving_average(vectors):
    group = vectors["ema"]
    mean = linear([group["teacher"]])
    follow(mean, linear([group["student"]]), group["gamma"])
    np.testing.assert_allclose(mean.weight.detach()[0], group["updated"], atol=1e-12)


@pytest.mark.parametrize("kind", ["orthogonal", "parallel"])
def test_adamp(vectors, kind):
    """The package does what the paper of AdamP says."""
    group = vectors["adamp"]
    layer = linear(group["w0"])
    optimizer = AdamP(layer.parameters(), lr=group["lr"], weight_decay=group["weight_decay"])
    for grad, step in zip(group[f"grads_{kind}"], group[f"steps_{kind}"], strict=True):
        layer.weight.grad = tensor(grad)
        optimizer.step()
        np.testing.assert_allclose(layer.weight.detach(), step["weight"], atol=1e-12)


def test_cosine_rate(vectors):
    group = vectors["cosine_lr"]
    optimizer = AdamP(linear([[1.0]]).parameters(), lr=group["lr0"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=group["T"])
    rates = []
    for _ in range(group["T"]):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    for epoch, rate in group["per_epoch"].items():
        if int(epoch) < group["T"]:
            assert rates[int(epoch)] == pytest.approx(rate, rel=1e-6)


def test_discriminability(vectors):
    group = vectors["discriminability"]
    found = discriminability(group["normal"], group["abnormal"])
    assert found == pytest.approx(group["d_prime_population"], abs=1e-12)
