"""Embeddings of an image are the same in every batch, whatever the backbone."""

import numpy as np
import pytest
import torch

from skad._features import FeatureSpec, patch_extractor

CPU = torch.device("cpu")


def make(backbone="resnet10t", size=32, layers=(2, 3), aggregation="concat"):
    spec = FeatureSpec(backbone, layers, size, 3, aggregation, 64, 48, "float32")
    return patch_extractor(spec, backbone, None, CPU)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("aggregation", ["concat", "adaptive"])
@pytest.mark.parametrize(
    ("backbone", "size"),
    [("resnet10t", 32), ("resnet10t", 64), ("densenet121", 64), ("efficientnet_b0", 64)],
)
def test_an_image_embeds_alike_in_every_batch(pixels, backbone, size, aggregation):
    extractor = make(backbone, size, aggregation=aggregation)
    images = np.ascontiguousarray(pixels[:, :size, :size])
    alone = torch.cat([extractor.embed(images[i : i + 1]) for i in range(len(images))])
    for n in (2, 5, 9):
        for _ in range(2):  # the first call tries the batch out, the second relies on it
            assert torch.equal(extractor.embed(images[:n]), alone[:n])


def test_a_backbone_that_rounds_differently_in_batches_is_found_out(pixels):
    class Wobbly(torch.nn.Module):
        def forward(self, x):
            pooled = torch.nn.functional.avg_pool2d(x, 8)
            return [pooled + 1e-6 * len(x)]

    spec = FeatureSpec(None, (2, 3), 64, 1, "concat", 1, 1, "float32")
    extractor = patch_extractor(spec, Wobbly(), None, CPU)
    alone = extractor.embed(pixels[:1])
    for _ in range(3):
        assert torch.equal(extractor.embed(pixels[:4])[:1], alone)


def test_vectors_of_length_one(pixels):
    """Each layer by itself, before the mean over neighbours."""
    plain = FeatureSpec("resnet10t", (2, 3), 64, 1, "concat", 64, 48, "float32")
    of_length_1 = FeatureSpec("resnet10t", (2, 3), 64, 1, "concat", 64, 48, "float32", True)
    raw, found = (
        extractor.split(extractor.pool(pixels[:2]))
        for extractor in (patch_extractor(s, "resnet10t", None, CPU) for s in (plain, of_length_1))
    )
    for before, after in zip(raw, found, strict=True):
        expected = before / torch.linalg.vector_norm(before, dim=-1, keepdim=True)
        torch.testing.assert_close(after, expected)


def test_a_transformer_passes_its_final_norm(pixels):
    name = "deit_tiny_patch16_224"
    spec = FeatureSpec(name, (1, 2), 64, 1, "concat", 64, 48, "float32", True)
    assert patch_extractor(spec, name, None, CPU).net.body.norm
    plain = FeatureSpec(name, (1, 2), 64, 1, "concat", 64, 48, "float32")
    assert not patch_extractor(plain, name, None, CPU).net.body.norm


def test_shapes():
    extractor = make(size=48)
    assert extractor.grid == (6, 6)
    assert extractor.dim == 128 + 256
    assert make(size=48, aggregation="adaptive").dim == 48
    embedding = extractor.embed(np.zeros((3, 48, 48, 3), np.uint8))
    assert embedding.shape == (3, 36, 384)
    assert embedding.dtype == torch.float32
    assert embedding.is_contiguous()


def test_one_extractor_for_one_specification():
    assert make() is make()
    assert make() is not make(size=64)
    assert make().net is make(size=64).net


def test_too_small_and_impossible_sizes():
    with pytest.raises(ValueError, match="smaller than the stride 16"):
        make(size=15)
    with pytest.raises(ValueError, match=r"cannot take images of 97 x 97.*divisible by patch size"):
        make("vit_tiny_patch16_224", size=97, layers=(3,))


@pytest.mark.parametrize(
    "error", [IndexError, KeyError, TypeError, ZeroDivisionError, AttributeError]
)
def test_whatever_a_backbone_raises_names_the_size(error):
    """MViT raises IndexError for images of another size."""

    class Choosy(torch.nn.Module):
        def forward(self, x):
            raise error("something inside")

    spec = FeatureSpec(None, (2, 3), 40, 1, "concat", 1, 1, "float32")
    with pytest.raises(ValueError, match=f"images of 40 x 40 pixels: {error.__name__}: .*inside"):
        patch_extractor(spec, Choosy(), None, CPU)


def test_transformers_of_any_size():
    assert make("mvitv2_tiny", size=256, layers=(0, 1)).grid == (64, 64)
    assert make("vit_tiny_patch16_224", size=96, layers=(3,)).grid == (6, 6)
