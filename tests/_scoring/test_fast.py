"""What is fast gives what is plain: scores, maps, their peaks and held-out scores of every detector."""

import numpy as np
import pytest
import torch
from conftest import make_detector, make_reconpatch, make_recontrast

from skad import ScoreFusionDetector
from skad._scoring.fast import FastScorer
from skad._scoring.plain import Batch, Scorer, TrainingImage

SETTINGS = {
    "patchcore": (make_detector, {}),
    "weighted": (make_detector, {"b": 5, "n_neighbors": 3}),
    "squared, padded": (make_detector, {"distance": "squared", "geometry": "pad"}),
    "adaptive": (make_detector, {"aggregation": "adaptive", "target_dim": 150}),
    "small bank": (make_detector, {"coreset_size": 50, "b": 3}),
    "faiss": (make_detector, {"index": "IVF8,Flat", "b": 3}),
    "reconpatch": (make_reconpatch, {"epochs": 1, "embedding_dim": 130, "b": 4}),
    "reconpatch, unweighted": (make_reconpatch, {"epochs": 1, "embedding_dim": 130, "b": None}),
}


@pytest.fixture(scope="module", params=SETTINGS)
def scoring(request, good):
    """A detector that has been fitted, and both of its scorers."""
    make, params = SETTINGS[request.param]
    if "index" in params:
        pytest.importorskip("faiss")
    det = make(**{"image_size": 96, "coreset_size": 0.5, "device": "cpu", **params}).fit(good)
    now = det._as_fitted()
    of_detector = now._scorer()
    fields = of_detector.bank, of_detector.rule, of_detector.heatmap
    return now, FastScorer(*fields), Scorer(*fields)


@pytest.fixture(scope="module")
def as_seen(scoring, good, defective):
    """Canvases and masks of images, the first of which the bank knows."""
    det = scoring[0]
    images = det._open(np.concatenate([good[:3], defective]), reset=False)
    (batch,) = det.set_params(batch_size=9)._iter_batches(images)
    masks = det.geometry_.masks(batch.shapes, det._network.grid)
    return Batch(0, batch.pixels, masks)


# Both re-measure distances in float64: only which of two nearly equal vectors is found may differ.
def assert_same(fast, plain):
    np.testing.assert_allclose(fast, plain, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("maps", [False, True])
def test_new_images(scoring, as_seen, maps):
    det, *scorers = scoring
    fast, plain = (
        next(iter(scorer.score_batches(det._embedder(), [as_seen], maps))) for scorer in scorers
    )
    assert_same(fast.image, plain.image)
    assert (fast.grid is None) == (plain.grid is None) == (not maps)
    if maps:
        assert_same(fast.grid, plain.grid)


@pytest.mark.parametrize("grids", [False, True])
@pytest.mark.parametrize("in_sample", [False, True])
def test_training_images(scoring, as_seen, grids, in_sample):
    det, fast, plain = scoring
    embedded = det._embedder().embed(as_seen.pixels)
    images = [
        TrainingImage(patches[torch.from_numpy(mask.ravel())], mask, source)
        # The second leaves nothing out, as an image does that has a twin.
        for patches, mask, source in zip(embedded, as_seen.masks, [0, None, 2, 3], strict=False)
    ]
    found, expected = (
        list(scorer.score_training(images, grids=grids, in_sample=in_sample))
        for scorer in (fast, plain)
    )
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        for part, wanted in zip(one, other, strict=True):
            assert_same(part, wanted)
        assert one.grid.size == (as_seen.masks[0].size if grids else 0)
        assert np.isnan(one.in_sample) == (not in_sample)


DETECTORS = {
    "patchcore": lambda: make_detector(image_size=96, b=3),
    "reconpatch": lambda: make_reconpatch(image_size=96, epochs=1),
    "recontrast": lambda: make_recontrast(max_iter=3, train_precision="float32"),
    "fusion": lambda: ScoreFusionDetector(
        [("a", make_detector()), ("b", make_detector(layers=(2,)))], target_false_alarm_rate=0.2
    ),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_whole_detectors_in_plain_mode(name, good, defective, monkeypatch):
    """Networks are not fused then: scores differ by the rounding of float32, and verdicts do not."""
    monkeypatch.delenv("SKAD_PLAIN", raising=False)
    det = DETECTORS[name]().fit(good)
    X = np.concatenate([good, defective])
    maps, scores = det.predict_heatmap(X, return_scores=True)
    normality, verdicts = det.score_samples(X), det.predict(X)
    monkeypatch.setenv("SKAD_PLAIN", "1")
    plain_maps, plain_scores = det.predict_heatmap(X, return_scores=True)
    # Relative to the scale of the scores: some of good images are close to zero.
    error = 1e-4 * np.abs(scores).max()
    np.testing.assert_allclose(plain_scores, scores, rtol=0, atol=error)
    np.testing.assert_allclose(det.score_samples(X), normality, rtol=0, atol=error)
    np.testing.assert_allclose(plain_maps, maps, rtol=0, atol=1e-4 * np.abs(maps).max())
    sure = np.abs(scores - det.offset_) > error
    np.testing.assert_array_equal(det.predict(X)[sure], verdicts[sure])
    # Thresholds of a fit in plain mode.
    again = DETECTORS[name]().fit(good)
    assert abs(again.offset_ - det.offset_) <= 10 * error
    assert abs(again.heatmap_threshold_ - det.heatmap_threshold_) <= 10 * error
