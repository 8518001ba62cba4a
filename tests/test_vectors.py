"""The papers' formulas against a file of float64 test vectors, group by group."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adamp import AdamP
from sklearn.metrics import roc_auc_score

from skad._bank import MemoryBank, greedy_k_center
from skad._features.embedding import AdaptiveEmbedding, ConcatEmbedding, pooling_bins
from skad._learning.linear_embedding import follow
from skad._learning.losses import (
    cosine_distances,
    global_cosine_loss,
    hard_mining_level,
    regional_cosine_loss,
    relaxed_contrastive_loss,
)
from skad._learning.recontrast_network import anomaly_map
from skad._learning.similarity import (
    contextual_similarity,
    neighbourhoods,
    pairwise_similarity,
    similarity,
    squared_distances,
)
from skad._learning.stable_norm import StableBatchNorm2d
from skad._scoring.fusing import robust_scale
from skad._scoring.heatmaps import render
from skad._scoring.maps import summarise
from skad._scoring.plain import mean_of_nearest, reweight
from skad.metrics import aupro, aupro_per_image, discriminability, f1_optimal_threshold, pixel_auroc


@pytest.fixture(scope="module")
def vectors():
    path = Path(__file__).parent / "data" / "vectors.json"
    return json.loads(path.read_text(encoding="utf-8"))


def maps(group):
    return [torch.tensor(group[k], dtype=torch.float64)[None] for k in ("level2", "level3")]


def test_adaptive_avg_pool1d(vectors):
    group = vectors["adaptive_avg_pool1d"]
    bins = pooling_bins(len(group["input"]), group["m"])
    assert [list(pair) for pair in bins] == group["bins"]
    assert [np.mean(group["input"][a:b]) for a, b in bins] == group["output"]


def test_patchify(vectors):
    group = vectors["patchify_3x3"]
    (pooled,) = ConcatEmbedding(3).pool(
        [torch.tensor(group["feature_map"], dtype=torch.float64)[None]]
    )
    np.testing.assert_allclose(
        pooled[0].permute(2, 0, 1), group["mean_3x3_zero_padded"], atol=1e-12
    )


def test_embeddings(vectors):
    group = vectors["embed_code_style"]
    dims = group["pretrain_dim"], group["target_dim"]
    adaptive = AdaptiveEmbedding([4, 8], 3, *dims, dtype=torch.float64)
    embedding = adaptive.join(adaptive.pool(maps(group)))
    np.testing.assert_allclose(embedding.flatten(0, 2), group["embedding_row_major"], atol=1e-12)
    group = vectors["embed_paper_style"]
    plain = ConcatEmbedding(3)
    embedding = plain.join(plain.pool(maps(group))).flatten(0, 2)
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
    around = bank.distances_around(group["queries"], ids, group["b"])
    weights = reweight(distances[:, 0], around)
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
    rates.append(optimizer.param_groups[0]["lr"])
    epochs = [int(epoch) for epoch in group["per_epoch"]]
    assert epochs == [0, 1, 30, 60, 90, 119, 120]
    expected = pytest.approx(list(group["per_epoch"].values()), rel=1e-6, abs=1e-18)
    assert [rates[epoch] for epoch in epochs] == expected


def test_discriminability(vectors):
    group = vectors["discriminability"]
    found = discriminability(group["normal"], group["abnormal"])
    assert found == pytest.approx(group["d_prime_population"], abs=1e-12)


def test_modified_z_scores(vectors):
    group = vectors["modified_zscore"]
    scale = robust_scale(np.array(group["train_scores"]))
    assert scale.median == group["median"]
    assert scale.spread == group["beta"] * group["mad"]
    np.testing.assert_allclose(scale.z(np.array(group["test_scores"])), group["z"], atol=1e-12)
    group = vectors["ensemble_modified_z"]
    scales = [robust_scale(np.array(train)) for train in group["train"]]
    z = [scale.z(np.array(test)) for scale, test in zip(scales, group["test"], strict=True)]
    np.testing.assert_allclose(z, group["z"], atol=1e-12)
    np.testing.assert_allclose(np.mean(z, axis=0), group["fused_mean"], atol=1e-12)


# ---- ReContrast ------------------------------------------------------------------------------------


def gradient(loss, target, decoder, mine=None):
    output = decoder.clone().requires_grad_()
    value = loss(target, output, mine)
    value.backward()
    return value.item(), output.grad


def test_cosine_losses(vectors):
    group = vectors["global_cosine_and_hard_mining"]
    target, decoder = tensor(group["encoder"]), tensor(group["decoder"])
    distances = cosine_distances(target, decoder)
    np.testing.assert_allclose(distances, group["point_distance"], atol=1e-12)
    assert distances.std().item() == pytest.approx(group["std_unbiased"], abs=1e-12)
    for name, loss in {"global": global_cosine_loss, "region": regional_cosine_loss}.items():
        value, grad = gradient(loss, target, decoder)
        assert value == pytest.approx(group[f"loss_{name}"], abs=1e-12)
        np.testing.assert_allclose(grad, group[f"grad_{name}"], atol=1e-12)


@pytest.mark.parametrize("alpha", [-3.0, 0.0, 0.5, 1.0])
def test_hard_mining(vectors, alpha):
    group = vectors["global_cosine_and_hard_mining"]
    target, decoder = tensor(group["encoder"]), tensor(group["decoder"])
    value, grad = gradient(global_cosine_loss, target, decoder, mine=alpha)
    assert value == pytest.approx(group["loss_global"], abs=1e-12)
    expected = group["hard_mining"][str(alpha)]
    np.testing.assert_allclose(grad, expected["grad"], atol=1e-12)
    easy = torch.tensor(expected["easy"])
    assert (grad.permute(0, 2, 3, 1)[easy] == 0).all()


def test_hard_mining_level(vectors):
    group = vectors["alpha_schedule"]
    for name, fraction in (("alpha", 0.1), ("stable_variant_warmup_fraction_0_2", 0.2)):
        for iteration, alpha in group[name].items():
            found = hard_mining_level(int(iteration), group["total_iters"], 1.0, -3.0, fraction)
            assert found == pytest.approx(alpha, abs=1e-12)


def test_anomaly_map(vectors):
    group = vectors["recontrast_anomaly_map"]
    targets = [tensor(layer)[None] for layer in group["encoder_maps"]]
    outputs = [tensor(layer)[None] for layer in group["decoder_maps"]]
    for target, output, expected in zip(targets, outputs, group["cosine_maps"], strict=True):
        np.testing.assert_allclose(cosine_distances(target, output)[0], expected, atol=1e-12)
    summed = anomaly_map(targets, outputs, 8)[0]
    np.testing.assert_allclose(summed, group["summed_8x8_align_true"], atol=1e-12)
    smooth = render(summed.numpy(), 8, 4.0)
    np.testing.assert_allclose(smooth, group["smoothed"], atol=1e-12)
    assert summarise(smooth, "map") == pytest.approx(group["image_score_max"], abs=1e-12)
    assert summarise(smooth, 1.0) == pytest.approx(group["image_score_mean"], abs=1e-12)
    top = summarise(smooth, group["top_fraction_used_here"])
    assert top == pytest.approx(group["top_fraction_mean"], abs=1e-12)


@pytest.mark.parametrize("pretrained", [True, False], ids=["paper", "code"])
def test_stable_batch_norm(vectors, pretrained):
    group = vectors["partial_norm_code"]
    norm = torch.nn.BatchNorm2d(2, eps=group["eps"], momentum=group["momentum"]).double()
    norm.running_mean.copy_(tensor(group["running_mean"]))
    norm.running_var.copy_(tensor(group["running_var"]))
    StableBatchNorm2d.convert(norm, pretrained=pretrained)
    output = norm(tensor(group["x"])).detach()
    expected = tensor(group["output"])
    np.testing.assert_allclose(output[:, 0], expected[:, 0], atol=1e-9)
    if pretrained:
        expected[:, 1] = tensor(group["paper_variant_output_channel1"]).reshape(
            expected[:, 1].shape
        )
    np.testing.assert_allclose(output[:, 1], expected[:, 1], atol=1e-9)
    np.testing.assert_allclose(norm.running_mean, group["new_running_mean"], atol=1e-12)
    if not pretrained:
        np.testing.assert_allclose(norm.running_var, group["new_running_var"], atol=1e-12)


# ---- metrics ---------------------------------------------------------------------------------------


def test_aupro(vectors):
    group = vectors["aupro"]
    masks, maps = ([np.array(x) for x in group[name]] for name in ("masks", "maps"))
    assert aupro(masks, maps) == pytest.approx(group["aupro_dataset_8conn"], abs=1e-12)
    assert aupro(masks, maps, 1.0) == pytest.approx(group["aupro_full_limit_1"], abs=1e-12)
    assert aupro(masks[:1], maps[:1]) == pytest.approx(
        group["aupro_only_anomalous_image"], abs=1e-12
    )
    assert aupro_per_image(masks, maps) == pytest.approx(group["per_image_rd4ad_style"], abs=1e-12)
    assert pixel_auroc(masks, maps) == pytest.approx(group["pixel_auroc"], abs=1e-12)


def test_f1_optimal(vectors):
    group = vectors["f1_optimal"]
    s = np.array(group["s"])
    best = f1_optimal_threshold(np.where(group["y"], -1, 1), -s)
    # There, images at the threshold are defective; ours lies just beyond it.
    assert s[-s < best.threshold].min() == group["threshold"]
    assert best.f1 == pytest.approx(group["f1"], abs=1e-12)
    assert best.accuracy == pytest.approx(group["accuracy"], abs=1e-12)
    assert best.false_positives == group["false_positives"]
    assert best.false_negatives == group["false_negatives"]
