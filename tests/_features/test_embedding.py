"""The embedding against hand-made numbers and against a literal version of the official steps."""

import pytest
import torch
import torch.nn.functional as F

from skad._features.embedding import AdaptiveEmbedding, ConcatEmbedding, pooling_bins

RAMP = torch.arange(18.0, dtype=torch.float64).reshape(1, 2, 3, 3)


def embed(embedding, maps):
    return embedding.join(embedding.pool(maps))


def literal(maps, patch_size, pretrain_dim, target_dim):
    """Unfold, align every entry, pool each layer, stack, pool: nothing folded together."""
    batch, (height, width) = maps[0].shape[0], maps[0].shape[-2:]
    pooled = []
    for layer in maps:
        length = layer.shape[1] * patch_size**2
        entries = F.unfold(layer, patch_size, padding=patch_size // 2)
        entries = entries.reshape(batch, length, *layer.shape[-2:])
        entries = F.interpolate(entries, size=(height, width), mode="bilinear", align_corners=False)
        flat = entries.permute(0, 2, 3, 1).reshape(-1, 1, length)
        pooled.append(F.adaptive_avg_pool1d(flat, pretrain_dim))
    stacked = torch.cat(pooled, dim=2)
    return F.adaptive_avg_pool1d(stacked, target_dim).reshape(batch, height, width, target_dim)


@pytest.mark.parametrize(
    ("n", "m", "first"),
    [
        (10, 4, [(0, 3), (2, 5), (5, 8), (7, 10)]),
        (4608, 1024, [(0, 5), (4, 9), (9, 14), (13, 18)]),
        (9216, 1024, [(0, 9), (9, 18)]),
        (16128, 1024, [(0, 16), (15, 32), (31, 48)]),
        (2048, 384, [(0, 6), (5, 11), (10, 16), (16, 22)]),
    ],
)
def test_bins(n, m, first):
    assert pooling_bins(n, m)[: len(first)] == first
    assert pooling_bins(n, m)[-1][1] == n


def test_bins_are_those_of_torch():
    values = torch.arange(10.0)[None, None]
    means = [values[0, 0, a:b].mean().item() for a, b in pooling_bins(10, 4)]
    assert means == F.adaptive_avg_pool1d(values, 4)[0, 0].tolist() == [1.0, 3.0, 6.0, 8.0]


def test_zero_padding_divides_by_the_full_area():
    pooled = embed(ConcatEmbedding(3), [RAMP])[0].permute(2, 0, 1)
    assert pooled[0, 0, 0].item() == pytest.approx(8 / 9, abs=1e-15)
    assert pooled[0, 1, 1].item() == pytest.approx(4.0, abs=1e-15)
    assert pooled[0, 2, 0].item() == pytest.approx(20 / 9, abs=1e-15)


@pytest.mark.parametrize(
    ("channels", "patch_size", "pretrain_dim", "target_dim"),
    [
        ((4, 8), 3, 8, 8),
        ((128, 256), 3, 1024, 1024),
        ((6, 12, 24), 3, 100, 77),
        ((5, 7), 5, 64, 24),
        ((32, 112), 3, 64, 64),
        ((16, 32), 3, 32, 12),
        ((3, 5), 1, 4, 1),
    ],
)
def test_adaptive_equals_the_literal_steps(channels, patch_size, pretrain_dim, target_dim):
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(2, c, 8 >> j, 8 >> j, dtype=torch.float64, generator=generator)
        for j, c in enumerate(channels)
    ]
    embedding = AdaptiveEmbedding(
        list(channels), patch_size, pretrain_dim, target_dim, torch.float64
    )
    expected = literal(maps, patch_size, pretrain_dim, target_dim)
    torch.testing.assert_close(embed(embedding, maps), expected, rtol=0, atol=1e-13)


def test_closed_form_of_the_published_ratios():
    """C channels to 2 C: the centre counts twice; 2 C channels: pairs of plain means."""
    generator = torch.Generator().manual_seed(0)
    shallow = torch.randn(1, 4, 4, 4, dtype=torch.float64, generator=generator)
    deep = torch.randn(1, 8, 4, 4, dtype=torch.float64, generator=generator)
    embedding = AdaptiveEmbedding([4, 8], 3, 8, 8, torch.float64)
    out = embed(embedding, [shallow, deep])[0].permute(2, 0, 1)
    kernel = torch.full((4, 1, 3, 3), 0.1, dtype=torch.float64)
    kernel[:, :, 1, 1] = 0.2
    torch.testing.assert_close(out[:4], F.conv2d(shallow, kernel, padding=1, groups=4)[0])
    means = F.avg_pool2d(deep, 3, 1, 1)[0]
    torch.testing.assert_close(out[4:], (means[0::2] + means[1::2]) / 2)


def test_concat_aligns_deeper_layers_without_corner_alignment():
    deep = torch.tensor([[1.0, 2.0], [4.0, 8.0]], dtype=torch.float64)[None, None]
    shallow = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    expected = torch.tensor(
        [
            [1.0, 1.25, 1.75, 2.0],
            [1.75, 2.1875, 3.0625, 3.5],
            [3.25, 4.0625, 5.6875, 6.5],
            [4.0, 5.0, 7.0, 8.0],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(embed(ConcatEmbedding(1), [shallow, deep])[0, ..., 1], expected)
