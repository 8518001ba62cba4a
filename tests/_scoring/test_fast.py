"""What is fast gives what is plain: scores, maps, their peaks and held-out scores of every detector."""

import numpy as np
import pytest
import torch
from conftest import make_detector, make_reconpatch, make_recontrast

from skad import ScoreFusionDetector
from skad._bank.search import measured
from skad._features.layers import PatchLayers
from skad._scoring import fast
from skad._scoring.fast import FastScorer
from skad._scoring.plain import Batch, Scorer, TrainingImage

PATCH = {"image_score": "patch"}
SETTINGS = {
    "patchcore": (make_detector, {}),
    "weighted": (make_detector, {"b": 5, "n_neighbors": 3, **PATCH}),
    "squared, padded": (make_detector, {"distance": "squared", "geometry": "pad"}),
    "adaptive": (make_detector, {"aggregation": "adaptive", "target_dim": 150}),
    "small bank": (make_detector, {"coreset_size": 50, "b": 3, **PATCH}),
    "faiss": (make_detector, {"index": "IVF8,Flat", "b": 3, **PATCH}),
    "reconpatch": (make_reconpatch, {"epochs": 1, "embedding_dim": 130, "b": 4}),
    "reconpatch, unweighted": (make_reconpatch, {"epochs": 1, "embedding_dim": 130, "b": None}),
}


@pytest.fixture(scope="module", params=SETTINGS)
def scoring(request, good):
    """A detector that has been fitted, and its scorer."""
    make, params = SETTINGS[request.param]
    if "index" in params:
        pytest.importorskip("faiss")
    det = make(**{"image_size": 96, "coreset_size": 0.5, "device": "cpu", **params}).fit(good)
    now = det._as_fitted()
    return now, now._scorer()


@pytest.fixture(params=["map", "patch", 0.02], ids=str)
def scorers(request, scoring):
    """The fast scorer and the plain one, of each rule for the score of an image."""
    of_detector = scoring[1]
    rule = of_detector.rule._replace(image_score=request.param)
    fields = of_detector.bank, rule, of_detector.heatmap
    return FastScorer(*fields), Scorer(*fields)


@pytest.fixture(scope="module")
def as_seen(scoring, good, defective):
    """Canvases of images, the first of which the bank knows, and where they lie."""
    det = scoring[0]
    images = det._open(np.concatenate([good[:3], defective]), reset=False)
    (batch,) = det.set_params(batch_size=9)._iter_batches(images)
    footprints = det.geometry_.footprints(batch.frames, det._network.grid)
    return Batch(0, batch.pixels, footprints)


# Both re-measure distances in float64: only which of two nearly equal vectors is found may differ.
def assert_same(fast, plain):
    np.testing.assert_allclose(fast, plain, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("maps", [False, True])
def test_new_images(scoring, scorers, as_seen, maps):
    det, _ = scoring
    fast, plain = (
        next(iter(scorer.score_batches(det._embedder(), [as_seen], maps))) for scorer in scorers
    )
    assert_same(fast.image, plain.image)
    assert (fast.grid is None) == (plain.grid is None) == (not maps)
    if maps:
        assert_same(fast.grid, plain.grid)


@pytest.mark.parametrize("grids", [False, True])
def test_training_images(scoring, scorers, as_seen, grids):
    embedded = scoring[0]._embedder().embed(as_seen.pixels)
    footprints = as_seen.footprints
    images = [
        TrainingImage(patches[torch.from_numpy(at.mask.ravel())], at, source)
        # The second leaves nothing out, as an image does that has a twin.
        for patches, at, source in zip(embedded, footprints, [0, None, 2, 3], strict=False)
    ]
    found, expected = (list(scorer.score_training(images, grids=grids)) for scorer in scorers)
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        for part, wanted in zip(one, other, strict=True):
            assert_same(part, wanted)
        assert one.grid.size == (footprints[0].mask.size if grids else 0)
    for image in images:
        assert_same(*(scorer.score_embedded(image.patches, image.footprint) for scorer in scorers))


DETECTORS = {
    "patchcore": lambda: make_detector(image_size=96),
    "reweighted": lambda: make_detector(image_size=96, b=3, image_score="patch"),
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


class TestBounds:
    """Bounds spare searches and change nothing."""

    @pytest.mark.parametrize(
        "params",
        [
            {"distance": "squared", "n_neighbors": 3},
            {"b": 5, "n_neighbors": 3, "image_score": "patch"},
            {"geometry": "pad", "contamination": 0.1},
            {"geometry": "pad", "contamination": 0.1, "image_score": "patch"},
            {"smoothing": 0.0},
        ],
    )
    @pytest.mark.parametrize("make", [make_detector, make_reconpatch])
    def test_same_detector_as_without(self, good, defective, monkeypatch, make, params):
        params = {"image_size": 96, "device": "cpu", **params}
        if make is make_reconpatch:
            params |= {"embedding_dim": 130, "epochs": 1}
        monkeypatch.setattr("skad._bank.bounds._LARGE", 1)  # coarse bounds at first
        with_bounds = make(**params).fit(good)
        assert fast.bounds_pay(with_bounds.bank_, torch.device("cpu"))
        monkeypatch.setattr(fast, "bounds_pay", lambda bank, device: False)
        without = make(**params).fit(good)
        for name in ("offset_", "training_scores_", "heatmap_threshold_"):
            np.testing.assert_allclose(
                getattr(with_bounds, name), getattr(without, name), rtol=1e-6, err_msg=name
            )
        expected, scores = without.predict_heatmap(defective, return_scores=True)
        monkeypatch.undo()
        np.testing.assert_allclose(with_bounds.score_samples(defective), scores, rtol=1e-6)
        np.testing.assert_allclose(with_bounds.predict_heatmap(defective), expected, rtol=1e-6)

    @pytest.mark.parametrize("params", [{}, {"n_neighbors": 3}, {"geometry": "pad"}])
    def test_maps_by_layers_are_maps_by_patches(self, good, defective, monkeypatch, params):
        det = make_detector(image_size=96, device="cpu", **params).fit(good)
        taken, products = [], PatchLayers.products

        def counted(*args):
            taken.append(1)
            return products(*args)

        monkeypatch.setattr(PatchLayers, "products", counted)
        by_layers = det.predict_heatmap(defective)
        assert taken
        monkeypatch.setattr(PatchLayers, "pay", lambda layers, dim: False)
        np.testing.assert_allclose(by_layers, det.predict_heatmap(defective), rtol=1e-6)

    @pytest.mark.parametrize(("image_score", "at_most"), [("patch", 48), ("map", 96)])
    def test_most_patches_are_never_searched(
        self, good, defective, monkeypatch, image_score, at_most
    ):
        det = make_detector(image_size=96, image_score=image_score).fit(good)
        searched = []

        def counted(queries, vectors, ids):
            searched.append(len(queries))
            return measured(queries, vectors, ids)

        for module in ("skad._bank.memory_bank", "skad._scoring.fast"):
            monkeypatch.setattr(f"{module}.measured", counted)
        det.score_samples(defective[:1])
        assert 0 < sum(searched) <= at_most
        searched.clear()
        det.predict_heatmap(defective[:1])
        assert sum(searched) >= 144

    @pytest.mark.parametrize("image_score", ["map", "patch", 0.02])
    def test_scores_are_the_same_with_and_without_maps(self, good, defective, image_score):
        det = make_detector(image_size=96, image_score=image_score).fit(good)
        _, scores = det.predict_heatmap(defective, return_scores=True)
        np.testing.assert_array_equal(det.score_samples(defective), scores)
