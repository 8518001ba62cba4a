"""Recipes that train nothing: their scores are those of the public code, up to what their notes say.

The expected values come from that code, run once on the same arrays: AnomalyDINO,
github.com/dammsi/AnomalyDINO at b3435f00052c9f7c0dcfe7f178a0138cfac3178e (`run_anomaly_detection`, which
searches by faiss on the CPU and takes the mean of the highest 1 % of the patches), and SuperADD,
github.com/LukasRoom/SuperADD at 44cf25144442fbbc1334ea59d1632327a4376d1a (`nearest_neighbors`, divided
by the number of features as in `SuperADD.predict`).
"""

import numpy as np
import pytest
import torch
from torch import nn

from skad._features import default_layers, default_normalize, default_patch_size
from skad.benchmark import PRESETS, build_detector, published, published_sources
from skad.benchmark._training_free import TRAINING_FREE

_RNG = np.random.default_rng(0)
WEIGHTS = _RNG.normal(size=(8, 3)).astype(np.float32)
IMAGES = list(_RNG.integers(0, 256, size=(5, 32, 32, 3), dtype=np.uint8))
GOOD, NEW = IMAGES[:2], IMAGES[2:]


class Colours(nn.Module):
    """Eight random mixtures of the colours of each pixel: 1,024 patches, ten of which are 1 %."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 8, 1, bias=False)
        self.mix.weight = nn.Parameter(torch.from_numpy(WEIGHTS)[:, :, None, None])

    def forward(self, images):
        return [self.mix(images)]


def detector_of(preset, **changes):
    # A map of the patches themselves, without smoothing.
    small = {"backbone": Colours(), "image_size": 32, "smoothing": 0.0, "device": "cpu"}
    return build_detector(PRESETS[preset], "bottle", 0, {**small, **changes}).fit(GOOD)


@pytest.mark.parametrize(
    ("n_neighbors", "expected"),
    [
        (1, [0.015229468978941441, 0.01429294515401125, 0.02063570460304618]),
        (3, [0.02103296425193548, 0.02023588875308633, 0.02965737972408533]),
    ],
)
def test_scores_of_anomalydino(n_neighbors, expected):
    detector = detector_of("anomalydino-1shot", n_neighbors=n_neighbors)
    # Cosine distances are half of the squared ones.
    np.testing.assert_allclose(-detector.score_samples(NEW) / 2, expected, rtol=1e-5)
    assert len(detector.bank_.vectors) == 2 * 32 * 32  # all patches


def test_distances_of_superadd():
    detector = detector_of("superadd", tiles=None, coreset_size=1.0, contamination=0.1)
    maps = np.stack(detector.predict_heatmap(NEW)) / 8
    highest = [0.11089338432635519, 0.12135945563753124, 0.12891413128661924]
    mean = [0.04786082625665077, 0.0489631737411095, 0.04847732682863622]
    np.testing.assert_allclose(maps.max(axis=(1, 2)), highest, rtol=1e-5)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), mean, rtol=1e-5)


def test_settings_of_anomalydino():
    preset = PRESETS["anomalydino-4shot"]
    assert (preset.shots, preset.n_seeds, preset.rotations) == (4, 3, 8)
    assert PRESETS["anomalydino-672-all"].rotations == 1
    detector = build_detector(preset, "bottle", 0, {})
    assert default_layers(detector.backbone)[-1:] == detector.layers  # the last block
    assert (detector.patch_size, detector.normalize) == (
        default_patch_size(detector.backbone),
        default_normalize(detector.backbone),
    )


def test_blocks_of_superadd_are_those_that_auto_takes():
    detector = build_detector(PRESETS["superadd"], "can", 0, {})
    assert default_layers(detector.backbone) == detector.layers


def test_figures_as_printed():
    """AnomalyDINO, Tables 2, 5 and 6; SuperADD, Tables 1 and 2."""
    assert published("anomalydino-1shot", "mvtec_ad")["image_auroc"] == {"avg": 96.5}
    large = published("anomalydino-672-1shot", "mvtec_ad")
    assert large["image_auroc"]["avg"] == 96.6
    assert large["aupro"]["transistor"] == 67.3
    assert len(published("anomalydino-672-16shot", "visa")["image_auroc"]) == 13
    assert published("anomalydino-all", "visa")["pixel_auroc"]["avg"] == 98.7
    tiles = published("superadd", "mvtec_ad_2")
    assert tiles["segmentation_f1"]["avg"] == 62.61
    assert tiles["segmentation_f1_private_mixed"]["vial"] == 63.52


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_their_figures_say_where_they_were_read(name):
    sources = [s for d in ("mvtec_ad", "visa", "mvtec_ad_2") for s in published_sources(name, d)]
    assert sources
    for source in sources:
        assert " Table " in source
        assert ", https://" in source


def test_sources_of_the_papers_rows():
    assert "PatchCore supp Table S1" in published_sources("patchcore-25", "mvtec_ad")
    assert published_sources("unheard-of", "mvtec_ad") == []
