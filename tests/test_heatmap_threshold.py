"""Scores by maps, and `heatmap_threshold_`, against maps of left-out images, made by SciPy."""

import numpy as np
import pytest
import torch
from brute_force import brute_force
from conftest import make_detector, make_reconpatch, make_recontrast
from scipy.ndimage import gaussian_filter

from skad import ReConPatchDetector, ScoreFusionDetector

RATE = 0.2
# A bank of all patches is made without those of an image by leaving them out.
# Nor does rounding, which whitening magnifies where images hardly differ, blur where thresholds lie.
WHOLE = {"coreset_size": "auto", "whitening": 0}


def embed(det, image):
    """(h, w, d) vectors of an image as the bank holds them."""
    embedder = det._as_fitted()._embedder()
    vectors = embedder.embed(det.geometry_.apply(image)[None].copy())[0]
    return vectors.double().numpy().reshape(*embedder.grid, -1)


def patch_grid(det, image, source=None):
    """(h, w) patch scores against the bank without an image's own vectors; borders fill padding."""
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


def canvas_of(det, image, source=None):
    """The map of what of the canvas holds the image: up-sampled by torch, smoothed by SciPy."""
    return content(det, image, rendered(patch_grid(det, image, source), det))


def rendered(grid, det, align_corners=False):
    canvas = torch.nn.functional.interpolate(
        torch.from_numpy(grid)[None, None],
        size=(det.image_size, det.image_size), mode="bilinear", align_corners=align_corners,
    )  # fmt: skip
    return gaussian_filter(canvas[0, 0].numpy(), det.smoothing)


def content(det, image, canvas):
    top, bottom, left, right = det.geometry_.content(*image.shape[:2])
    return canvas[top:bottom, left:right]


def mean_of_top(canvas, fraction):
    return np.sort(canvas, axis=None)[-max(1, int(fraction * canvas.size)) :].mean()


def by_rank(peaks):
    """A new good map exceeds it with a probability of RATE: at rank (n + 1) RATE, interpolated."""
    return -np.quantile(np.negative(peaks), RATE, method="weibull")


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"geometry": "pad"},
        {"image_size": 64, "n_neighbors": 3},  # bounds spare searches
        {"geometry": "pad", "image_size": 64, "distance": "squared"},
        {"smoothing": 9.0, "geometry": "crop", "resize": 40},
        {"image_score": 0.1, "geometry": "pad"},
        {"image_score": "patch"},
        {"b": 4, "geometry": "pad", "image_size": 64, "image_score": "patch"},
        {"b": 3, "n_neighbors": 2, "distance": "squared", "image_score": "patch"},
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [make_detector, make_reconpatch])
def test_of_a_bank(good, make, params):
    good = good[:8]
    params = {**WHOLE, **params} if make is make_detector else {**WHOLE, "epochs": 1, **params}
    det = make(target_false_alarm_rate=RATE, **params).fit(good)
    maps = [canvas_of(det, image, i) for i, image in enumerate(good)]
    peaks = np.array([canvas.max() for canvas in maps])
    assert det.heatmap_threshold_ == pytest.approx(by_rank(peaks), rel=1e-9)
    if det.image_score == "map":
        np.testing.assert_allclose(-det.training_scores_, peaks, rtol=1e-9)
        assert det.heatmap_threshold_ == -det.offset_
    elif det.image_score == 0.1:
        expected = [mean_of_top(canvas, 0.1) for canvas in maps]
        np.testing.assert_allclose(-det.training_scores_, expected, rtol=1e-9)
    elif det.b is None or make is make_reconpatch:
        expected = [patch_grid(det, image, i).max() for i, image in enumerate(good)]
        np.testing.assert_allclose(-det.training_scores_, expected, rtol=1e-9)
    # What is close to it is something else: scores of images, or maps that know their own image.
    others = [by_rank([canvas_of(det, image).max() for image in good])]
    if det.image_score != "map":
        others.append(-det.offset_)
    for other in others:
        assert other != pytest.approx(det.heatmap_threshold_, rel=1e-3)


@pytest.mark.parametrize("image_score", ["map", 0.02])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"image_size": 96},
        {"geometry": "pad", "image_size": 96},
        {"geometry": "crop", "smoothing": 1.5},
    ],
    ids=str,
)
def test_of_new_images_of_any_size(good, defective, params, image_score):
    det = make_detector(image_score=image_score, batch_size=3, **params).fit(good)
    images = [defective[0], good[1][:20], defective[1][:, 20:], good[2][:, :17], defective[2]]
    found = list(det._as_fitted()._iter_maps(images))
    maps = [canvas_of(det, image) for image in images]
    expected = [c.max() if image_score == "map" else mean_of_top(c, 0.02) for c in maps]
    np.testing.assert_allclose(-det.score_samples(images), expected, rtol=1e-9)
    for image, mapped, canvas in zip(images, found, maps, strict=True):
        np.testing.assert_allclose(content(det, image, mapped.canvas), canvas, rtol=1e-9)
        assert np.count_nonzero(~np.isnan(mapped.canvas)) == canvas.size
        assert mapped.peak == pytest.approx(canvas.max(), rel=1e-9)


@pytest.mark.parametrize("image_score", ["map", "patch"])
def test_of_a_fraction_of_training_images(good, image_score):
    """With a percentile instead of a rank: of scores of the whole bank, or of left-out peaks."""
    size, sources = (0.25, [None] * 12) if image_score == "map" else ("auto", range(12))
    params = {"contamination": 0.25, "coreset_size": size, "whitening": 0}
    det = make_detector(image_score=image_score, **params).fit(good)
    peaks = [canvas_of(det, image, i).max() for i, image in zip(sources, good, strict=True)]
    assert det.heatmap_threshold_ == pytest.approx(np.percentile(peaks, 75), rel=1e-9)


def test_of_images_of_different_sizes(good):
    """Every image has its own padding."""
    images = [image[: 40 - 2 * i, :48] for i, image in enumerate(good)]
    det = make_detector(geometry="pad", target_false_alarm_rate=RATE, **WHOLE).fit(images)
    peaks = [canvas_of(det, image, i).max() for i, image in enumerate(images)]
    np.testing.assert_allclose(-det.training_scores_, peaks, rtol=1e-9)
    assert det.heatmap_threshold_ == pytest.approx(by_rank(peaks), rel=1e-9)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"image_score": 0.1},
        {"smoothing": 1.0},
        {"geometry": "pad"},
        {"geometry": "pad", "image_score": 1.0},
    ],
    ids=str,
)
def test_of_a_network(good, params):
    det = make_recontrast(
        max_iter=2, validation_fraction=0.5, target_false_alarm_rate=RATE, **params
    ).fit(good)
    held = good[det.validation_indices_]
    assert len(held) == 6
    ((_, scored),) = det.set_params(batch_size=6)._as_fitted()._iter_scores(held, maps=True)
    shape = good.shape[1:3]
    top, bottom, left, right = det.geometry_.content(*shape)
    maps = []
    for grid in scored.grid:
        inside = grid[top:bottom, left:right]
        assert np.isnan(grid).sum() == grid.size - inside.size
        pad = ((top, 32 - bottom), (left, 32 - right))
        smooth = gaussian_filter(np.pad(inside, pad, mode="edge"), det.smoothing)
        maps.append(smooth[top:bottom, left:right])
    peaks = [canvas.max() for canvas in maps]
    assert det.heatmap_threshold_ == pytest.approx(by_rank(peaks), rel=1e-9)
    if det.image_score == "map":
        expected = peaks
        assert det.heatmap_threshold_ == -det.offset_
    else:
        expected = [mean_of_top(canvas, det.image_score) for canvas in maps]
    np.testing.assert_allclose(-det.score_samples(held), expected, rtol=1e-9)
    np.testing.assert_array_equal(
        det.training_scores_[det.validation_indices_], det.score_samples(held)
    )


@pytest.mark.parametrize(
    "params",
    [{}, {"image_score": "patch"}, {"image_score": 0.1}, {"level": "image"}],
    ids=str,
)
def test_of_an_ensemble(good, params):
    """Mean of the members' z-scores, cell by cell, then up-sampled and smoothed."""
    members = [
        ("near", make_detector(**WHOLE)),
        ("far", make_detector(n_neighbors=3, random_state=1, **WHOLE)),
    ]
    det = ScoreFusionDetector(members, target_false_alarm_rate=RATE, **params).fit(good)
    fused = 0
    for member in det.estimators_:
        grids = np.array([patch_grid(member, image, i) for i, image in enumerate(good)])
        deviations = np.abs(grids - np.median(grids))
        fused = fused + (grids - np.median(grids)) / (1.4826 * np.median(deviations)) / 2
    maps = [rendered(grid, det.estimators_[0]) for grid in fused]
    peaks = [canvas.max() for canvas in maps]
    assert det.heatmap_threshold_ == pytest.approx(by_rank(peaks), rel=1e-9)
    if not params:
        np.testing.assert_allclose(-det.training_scores_, peaks, rtol=1e-9)
        assert det.heatmap_threshold_ == -det.offset_
    else:
        assert det.heatmap_threshold_ != pytest.approx(-det.offset_, rel=1e-2)
    if det.image_score == 0.1:
        expected = [mean_of_top(canvas, 0.1) for canvas in maps]
        np.testing.assert_allclose(-det.training_scores_, expected, rtol=1e-9)
