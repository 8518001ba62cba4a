"""`heatmap_threshold_` against its definition: highest points of maps of left-out images, by rank."""

import numpy as np
import pytest
import torch
from brute_force import brute_force
from conftest import make_detector, make_reconpatch, make_recontrast
from scipy.ndimage import gaussian_filter

from skad import ReConPatchDetector, ScoreFusionDetector

RATE = 0.2


def embed(det, image):
    """(h, w, d) vectors of an image as the bank holds them."""
    embedder = det._as_fitted()._embedder()
    vectors = embedder.embed(det.geometry_.apply(image)[None].copy())[0]
    return vectors.double().numpy().reshape(*embedder.grid, -1)


def left_out_grid(det, image, source):
    """(h, w) patch scores against the bank without the image's own vectors; borders fill padding."""
    vectors = embed(det, image)
    height, width = det._find_network().grid
    top, bottom, left, right = det.geometry_.valid_cells(*image.shape[:2], height, width)
    inner = vectors[top:bottom, left:right]
    others = det.bank_.vectors[det.bank_.sources != source]
    patches = inner.reshape(-1, inner.shape[-1])
    distances, ids = brute_force(patches, others, det.n_neighbors)
    scores = (distances ** (2 if det.distance == "squared" else 1)).mean(1)
    if isinstance(det, ReConPatchDetector) and det.b is not None:
        # Eq. 10, of every patch; PatchCore weighs the highest alone, and its map not at all.
        around = others[brute_force(others[ids[:, 0]], others, det.b)[1]].astype(float)
        away = np.linalg.norm(patches[:, None] - around, axis=2)
        scores *= 1 - np.exp(distances[:, 0]) / np.exp(away).sum(1)
    grid = scores.reshape(inner.shape[:2])
    return np.pad(grid, ((top, height - bottom), (left, width - right)), mode="edge")


def peak(grid, size, sigma, align_corners=False):
    """Highest point of the map: up-sampled bilinearly by torch, smoothed by SciPy."""
    canvas = torch.nn.functional.interpolate(
        torch.from_numpy(grid)[None, None],
        size=(size, size), mode="bilinear", align_corners=align_corners,
    )  # fmt: skip
    return gaussian_filter(canvas[0, 0].numpy(), sigma).max()


def by_rank(peaks):
    """The k-th highest of n: a new good map exceeds it with a probability of k / (n + 1) at most."""
    return np.sort(peaks)[::-1][int(RATE * (len(peaks) + 1)) - 1]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"b": 4},
        {"b": 3, "n_neighbors": 2, "distance": "squared"},
        {"geometry": "pad"},
        {"geometry": "pad", "b": 4, "image_size": 96},  # bounds spare searches
        {"image_size": 96, "n_neighbors": 3},
        {"smoothing": 0.0},
        {"smoothing": 9.0, "geometry": "crop", "resize": 40},
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [make_detector, make_reconpatch])
def test_of_a_bank(good, make, params):
    params = {"epochs": 1, **params} if make is make_reconpatch else params
    det = make(target_false_alarm_rate=RATE, **params).fit(good)
    grids = [left_out_grid(det, image, i) for i, image in enumerate(good)]
    peaks = [peak(grid, det.image_size, det.smoothing) for grid in grids]
    assert det.heatmap_threshold_ == pytest.approx(by_rank(peaks), rel=1e-5)
    # What is close to it is something else: scores of images, or maps that know their own image.
    own = det.predict_heatmap(good).max((1, 2))
    others = [-det.offset_, by_rank(own)]
    if params.get("smoothing") == 0.0:  # of a map as it is, the peak is the score
        assert by_rank([grid.max() for grid in grids]) == pytest.approx(-det.offset_, rel=1e-6)
        others = others[1:]
    for other in others:
        assert other != pytest.approx(det.heatmap_threshold_, rel=1e-3)


def test_of_a_share_of_training_images(good):
    """With a percentile instead of a rank it is the percentile of the same peaks."""
    det = make_detector(contamination=0.25).fit(good)
    peaks = [
        peak(left_out_grid(det, image, i), det.image_size, det.smoothing)
        for i, image in enumerate(good)
    ]
    assert det.heatmap_threshold_ == pytest.approx(np.percentile(peaks, 75), rel=1e-5)


def test_of_images_of_different_sizes(good):
    """Every image has its own padding."""
    images = [image[: 40 - 2 * i, :48] for i, image in enumerate(good)]
    det = make_detector(geometry="pad", target_false_alarm_rate=RATE).fit(images)
    peaks = [
        peak(left_out_grid(det, image, i), det.image_size, det.smoothing)
        for i, image in enumerate(images)
    ]
    assert det.heatmap_threshold_ == pytest.approx(by_rank(peaks), rel=1e-5)


@pytest.mark.parametrize("params", [{}, {"top_fraction": 0.1}, {"smoothing": 1.0}])
def test_of_a_network(good, params):
    """Maps of the held-out images, which are as large as the canvas here."""
    images = good[:, 4:36, 8:40]
    det = make_recontrast(
        max_iter=2, validation_fraction=0.5, target_false_alarm_rate=RATE, **params
    ).fit(images)
    held = images[det.validation_indices_]
    assert len(held) == 6
    peaks = det.predict_heatmap(held).max((1, 2))
    assert det.heatmap_threshold_ == pytest.approx(by_rank(peaks), rel=1e-5)


@pytest.mark.parametrize("level", ["map", "image"])
def test_of_an_ensemble(good, level):
    """Mean of the members' z-scores, cell by cell, then up-sampled and smoothed."""
    members = [("near", make_detector()), ("far", make_detector(n_neighbors=3, random_state=1))]
    det = ScoreFusionDetector(members, level=level, target_false_alarm_rate=RATE).fit(good)
    fused = 0
    for member in det.estimators_:
        grids = np.array([left_out_grid(member, image, i) for i, image in enumerate(good)])
        deviations = np.abs(grids - np.median(grids))
        fused = fused + (grids - np.median(grids)) / (1.4826 * np.median(deviations)) / 2
    peaks = [peak(grid, 32, 4.0) for grid in fused]
    assert det.heatmap_threshold_ == pytest.approx(by_rank(peaks), rel=1e-3)
    assert det.heatmap_threshold_ != pytest.approx(-det.offset_, rel=1e-2)
