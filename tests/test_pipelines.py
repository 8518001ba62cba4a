"""Detectors as the last step of scikit-learn's pipelines."""

import re

import joblib
import numpy as np
import pandas as pd
import pytest
from conftest import (
    make_detector,
    make_dinomaly,
    make_padim,
    make_reconpatch,
    make_recontrast,
    make_spade,
)
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler
from sklearn.utils import estimator_html_repr

from skad import PatchCoreDetector, ScoreFusionDetector
from skad._sklearn_compat import SKLEARN_VERSION
from skad.model_selection import OneClassKFold, image_auroc_scorer

MAKERS = {
    "patchcore": make_detector,
    "reconpatch": make_reconpatch,
    "recontrast": lambda: make_recontrast(max_iter=3),
    "dinomaly": lambda: make_dinomaly(max_iter=2),
    "padim": make_padim,
    "spade": make_spade,
    "fusion": lambda: ScoreFusionDetector(
        [("a", make_detector()), ("b", make_detector(layers=(2,)))], target_false_alarm_rate=0.2
    ),
}


@pytest.fixture(params=MAKERS)
def detector(request):
    return MAKERS[request.param]()


def cut(images):
    return images[:, 2:-2]


def test_after_a_transformer_of_images(detector, good, defective):
    pipeline = make_pipeline(FunctionTransformer(cut), detector).fit(good)
    alone = clone(detector).fit(good[:, 2:-2])
    np.testing.assert_array_equal(
        pipeline.score_samples(defective), alone.score_samples(defective[:, 2:-2])
    )
    assert (pipeline.predict(good[:2]) == alone.predict(good[:2, 2:-2])).all()


def test_after_a_transformer_of_rows(good):
    """Grey images as rows of a table; scaling them to 0..1 leaves images what they are."""
    rows = good[..., 0].reshape(len(good), -1).astype(np.float64)
    scaler = MinMaxScaler().fit([[0.0] * rows.shape[1], [255.0] * rows.shape[1]])
    detector = make_detector(image_shape=(40, 48))
    # The scaler is fitted on the range of pixels, not of these images, and frozen.
    pipeline = make_pipeline(FunctionTransformer(scaler.transform), detector).fit(rows)
    alone = make_detector().fit(good[..., 0])
    np.testing.assert_allclose(pipeline.score_samples(rows), alone.score_samples(good[..., 0]))


def test_tables_of_pandas_do_no_harm(detector, good):
    rows = pd.DataFrame(good[:, ::2, ::2, 0].reshape(len(good), -1) / 255)
    rows.columns = [f"pixel{i}" for i in range(rows.shape[1])]
    shape = {name: (20, 24) for name in detector.get_params() if name.endswith("image_shape")}
    detector.set_params(**shape)
    steps = make_pipeline(FunctionTransformer(feature_names_out="one-to-one"), detector)
    plain = clone(steps).fit(rows).score_samples(rows)
    with config_context(transform_output="pandas"):
        tables = clone(steps).fit(rows).score_samples(rows)
    chosen = steps.set_output(transform="pandas").fit(rows)
    np.testing.assert_array_equal(tables, plain)
    np.testing.assert_array_equal(chosen.score_samples(rows), plain)
    assert chosen[-1].n_features_in_ == 20 * 24
    assert chosen[-1].feature_names_in_[0] == "pixel0"


def test_nested_names(detector, good):
    pipeline = Pipeline([("cut", FunctionTransformer(cut)), ("detect", detector)])
    rate = "detect__target_false_alarm_rate"
    copy = clone(pipeline).set_params(**{rate: 0.3}).fit(good)
    assert copy["detect"].target_false_alarm_rate == 0.3
    assert pipeline.get_params()[rate] == 0.2


def test_a_search_over_nested_names(good, defective):
    X = np.concatenate([good, defective])
    y = np.repeat([1, -1], [len(good), len(defective)])
    pipeline = Pipeline([("cut", FunctionTransformer(cut)), ("detect", make_detector())])
    grid = {"detect__n_neighbors": [1, 3], "cut__func": [None, cut]}
    search = GridSearchCV(pipeline, grid, scoring=image_auroc_scorer, cv=OneClassKFold(2))
    search.fit(X, y)
    assert search.best_score_ == 1.0
    assert set(search.predict(defective)) == {-1}


def test_cached_transformers(good, defective, tmp_path):
    """The pipeline caches its transformers, the detector its features, in one joblib.Memory."""
    memory = joblib.Memory(tmp_path, verbose=0)
    steps = [("cut", FunctionTransformer(cut)), ("detect", make_detector(memory=memory))]
    plain = clone(Pipeline(steps)).set_params(detect__memory=None).fit(good)
    for _ in range(2):
        cached = Pipeline(steps, memory=memory).fit(good)
        np.testing.assert_array_equal(
            cached.score_samples(defective), plain.score_samples(defective)
        )
    assert len(list(tmp_path.rglob("*.features"))) == len(good) + len(defective)


@pytest.mark.skipif(SKLEARN_VERSION < (1, 9), reason="texts of parameters since scikit-learn 1.9")
def test_html_shows_types_and_what_was_set():
    page = estimator_html_repr(PatchCoreDetector("skad_nano"))
    assert (
        "{&#x27;squash&#x27;, &#x27;pad&#x27;, &#x27;crop&#x27;}, default=&#x27;squash&#x27;"
        in (page.replace("&quot;", "&#x27;"))
    )
    rows = re.findall(r'<tr class="user-set">.*?</tr>', page, re.DOTALL)
    assert len(rows) == 1
    assert "backbone" in rows[0]


@pytest.mark.skipif(SKLEARN_VERSION < (1, 9), reason="learned attributes since scikit-learn 1.9")
def test_html_shows_what_was_learned(good):
    page = estimator_html_repr(make_detector().fit(good))
    assert "Fitted attributes" in page
    for name in ("offset_", "calibration_scores_", "image_size_", "n_images_"):
        assert f"{name}: " in page or f">{name}<" in page, name


def test_html(detector, good):
    page = estimator_html_repr(make_pipeline(FunctionTransformer(cut), detector))
    assert type(detector).__name__ in page
    assert "target_false_alarm_rate" in page
    fitted = clone(detector).fit(good)
    assert type(detector).__name__ in estimator_html_repr(fitted)
