"""A detector among classifiers: what trains it, what its probabilities are, and who may hold it."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import tiny_resnet  # noqa: F401  registers the backbone
import torch
from conftest import make_detector, make_recontrast
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import IsolationForest, StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    StratifiedKFold,
    TunedThresholdClassifierCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_html_repr

import skad
from skad import DefectClassifier, PatchCoreDetector
from skad.metrics import image_auroc
from skad.model_selection import unwrap
from skad.utils.estimator_checks import defective_images, good_images

IS_DEFECTIVE = np.repeat([False, True], [14, 6])
# Good label, label of defects, and what VotingClassifier and StackingClassifier make of the latter.
CODINGS = {
    "-1": (1, -1, 0),
    "1": (0, 1, 1),
    "texts": ("good", "scratched", 1),
    "first": ("good", "defective", 0),
}


@pytest.fixture(scope="module")
def X():
    return np.concatenate([good_images(14), defective_images(6)])


def make(**params):
    detector = make_detector(backbone="tiny_resnet", coreset_size=0.1)
    return DefectClassifier(detector, **{"defect_label": -1, **params})


def coded(coding):
    good, defect, _ = CODINGS[coding]
    return np.where(IS_DEFECTIVE, defect, good)


def cut(images):
    return images[:, 4:]


@pytest.fixture(scope="module")
def fitted(X):
    return make().fit(X, coded("-1"))


@pytest.fixture
def learned(monkeypatch):
    """How many good and defective images each fit of a detector has learned from."""
    fits, learn = [], PatchCoreDetector._fit_images

    def count(self, images, progress, *, grids):
        bright = [images.load(i)[10, 30].max() == 250 for i in range(len(images))]
        fits.append((bright.count(False), bright.count(True)))
        return learn(self, images, progress, grids=grids)

    monkeypatch.setattr(PatchCoreDetector, "_fit_images", count)
    return fits


def meta(name, defect, encoded):
    members = [
        (method, make(defect_label=encoded, method=method)) for method in ("sigmoid", "isotonic")
    ]
    return {
        "alone": lambda: make(defect_label=defect),
        "voting": lambda: VotingClassifier(members, voting="soft"),
        "stacking": lambda: StackingClassifier(members[:1], cv=StratifiedKFold(2)),
        "calibrated": lambda: CalibratedClassifierCV(make(defect_label=defect), cv=2),
        "tuned": lambda: TunedThresholdClassifierCV(
            make(defect_label=defect), scoring=make_scorer(f1_score, pos_label=defect), cv=2
        ),
    }[name]()


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(
    ("name", "n_good"),
    [
        ("alone", [14]),
        ("voting", [14, 14]),
        ("stacking", [14, 7, 7]),
        ("calibrated", [7, 7]),
        ("tuned", [14, 7, 7]),
    ],
)
def test_no_defect_ever_trains(X, learned, coding, name, n_good):
    _, defect, encoded = CODINGS[coding]
    y = coded(coding)
    model = meta(name, defect, encoded).fit(list(X), y)
    assert learned in ([(n, 0) for n in n_good], [(n, 0) for n in n_good[::-1]])
    assert (model.predict(X) == y).all()
    probabilities = model.predict_proba(X)[:, model.classes_.tolist().index(defect)]
    assert probabilities[IS_DEFECTIVE].min() > probabilities[~IS_DEFECTIVE].max()


@pytest.mark.parametrize("defect", [-1, 2, 0.5, "bad"])
@pytest.mark.parametrize("wrap", [VotingClassifier, StackingClassifier])
def test_a_label_that_is_not_the_encoded_one_is_refused(X, learned, wrap, defect):
    with pytest.raises(ValueError, match=r"is no class of y, which holds \[0, 1\]"):
        wrap([("a", make(defect_label=defect))]).fit(X, coded("-1"))
    assert learned == []


# ---------------------------------------------------------------------- what it promises


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_predictions_agree(X, coding, method):
    good, defect, _ = CODINGS[coding]
    clf = make(defect_label=defect, method=method).fit(X, coded(coding))
    assert clf.classes_.tolist() == sorted([good, defect])
    probabilities, decisions = clf.predict_proba(X), clf.decision_function(X)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[probabilities.argmax(1)])
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[(decisions > 0).astype(int)])
    np.testing.assert_allclose(np.log(probabilities[:, 1] / probabilities[:, 0]), decisions)
    assert (np.diff(probabilities[np.argsort(decisions), 1]) >= 0).all()
    # Higher = more probably classes_[1]; the detector's scores are higher for good images.
    towards_good = decisions if clf.classes_[1] == good else -decisions
    order = np.argsort(clf.detector_.score_samples(X))
    assert (np.diff(towards_good[order]) >= 0).all()


def test_the_detector_is_the_one_of_the_good_images(X, fitted):
    alone = clone(make().detector).fit(X[~IS_DEFECTIVE])
    np.testing.assert_array_equal(fitted.detector_.score_samples(X), alone.score_samples(X))
    assert fitted.detector_.offset_ == alone.offset_
    assert not hasattr(fitted.detector, "offset_")  # cloned


def test_good_images_count_by_their_held_out_scores(X):
    """Images that were learned from look better than new ones; the map must not know that."""
    fitted = make().set_params(detector__coreset_size=1.0).fit(X, coded("-1"))
    detector, new = fitted.detector_, good_images(40, seed=9)
    middle = {
        name: np.median(scores)
        for name, scores in {
            "held out": detector.calibration_scores_,
            "learned": detector.score_samples(X[~IS_DEFECTIVE]),
            "new": detector.score_samples(new),
        }.items()
    }
    flattery = middle["learned"] - middle["held out"]
    assert flattery > 0
    assert abs(middle["new"] - middle["held out"]) < 0.3 * flattery
    assert (fitted.predict(new) == 1).all()


@pytest.mark.parametrize("form", ["list", "paths", "Series", "frame", "tensor", "data set"])
def test_forms_of_images(X, fitted, form, tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(len(X))]
    for path, image in zip(paths, X, strict=True):
        Image.fromarray(image).save(path)

    class Images:
        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return X[i]

    held = {
        "list": list(X),
        "paths": np.array(paths),
        "Series": pd.Series(paths, index=range(len(X), 0, -1)),
        "frame": pd.DataFrame({"path": paths}),
        "tensor": torch.from_numpy(X),
        "data set": Images(),
    }[form]
    y = pd.Series(coded("-1"), index=range(5, 5 + len(X)))
    other = make().fit(held, y)
    np.testing.assert_array_equal(other.predict_proba(held), fitted.predict_proba(X))


@pytest.mark.parametrize("y", ["bool", "column", "categories", "object"])
def test_forms_of_labels(X, fitted, y):
    held, label = {
        "bool": (IS_DEFECTIVE, True),
        "column": (pd.DataFrame({"y": coded("texts")}), "scratched"),
        "categories": (pd.Series(coded("texts"), dtype="category"), "scratched"),
        "object": (coded("texts").astype(object), "scratched"),
    }[y]
    if y == "column":
        with pytest.warns(Warning, match="column-vector y"):
            clf = make(defect_label=label).fit(X, held)
    else:
        clf = make(defect_label=label).fit(X, held)
    np.testing.assert_array_equal(clf.predict_proba(X)[:, 1], fitted.predict_proba(X)[:, 0])


def test_rows(X):
    rows = pd.DataFrame(X[:, ::2, ::2, 0].reshape(len(X), -1) / 255).rename(columns=str)
    clf = make().set_params(detector__image_shape=(20, 24)).fit(rows, coded("-1"))
    assert clf.n_features_in_ == 480
    assert clf.feature_names_in_[0] == "0"
    assert not hasattr(make(), "n_features_in_")
    with pytest.raises(ValueError, match="feature names"):
        clf.predict(rows.iloc[:, :-1])


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("y", "label", "message"),
    [
        (
            np.ones(20),
            -1,
            r"defect_label=-1 is no class of y, which holds \[1.0\].*detector itself",
        ),
        (coded("1"), -1, r"is no class of y, which holds \[0, 1\].*VotingClassifier"),
        (coded("texts"), "bad", r"'bad' is no class of y, which holds \['good', 'scratched'\]"),
        (-np.ones(20, int), -1, "holds one class, .*good images are needed"),
        (np.arange(20) % 7, 1, r"Only binary classification.*multiclass.*and 2 others"),
        (np.linspace(0, 1, 20), 1, "Unknown label type"),
        (coded("-1")[:-1], -1, "19 labels for 20 images"),
        (None, -1, "requires y to be passed.*labelled defects"),
        ([None, *coded("texts")[1:]], "scratched", "label"),
        ([float("nan"), *coded("1")[1:]], 1, "y contains NaN"),
    ],
)
def test_labels_that_do_not_do(X, learned, y, label, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(defect_label=label).fit(X, y)
    assert learned == []  # before any work


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (IsolationForest(), "'detector' parameter.*IsolationForest"),
        (PatchCoreDetector, "'detector' parameter"),
        (make_pipeline(FunctionTransformer(), IsolationForest()), "ends with a IsolationForest"),
    ],
)
def test_what_is_no_detector(X, detector, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DefectClassifier(detector, defect_label=-1).fit(X, coded("-1"))


def test_no_image_is_held_out(X):
    clf = DefectClassifier(make_recontrast(max_iter=1, validation_fraction=0), defect_label=-1)
    clf.set_params(detector__contamination=0.1)
    with pytest.raises(ValueError, match=r"no held-out scores .*validation_fraction"):
        clf.fit(X, coded("-1"))


def test_defects_that_look_good(X):
    """Half of the images that look alike are called defective: no score tells them apart."""
    y = np.repeat([1, -1], [12, 8])
    images = np.concatenate([good_images(12), good_images(12)[:8]])  # twins of learned images
    with pytest.warns(UserWarning, match=r"no more anomalous .*AUROC 0\.\d+.*probability 0\.\d+"):
        clf = make().fit(images, y)
    assert len(set(clf.predict_proba(X)[:, 0])) == 1
    assert np.isfinite(clf.decision_function(X)).all()


def test_what_fails_leaves_nothing_fitted(X, fitted):
    clf = copy.copy(fitted)
    with pytest.raises(ValueError, match="no class"):
        clf.fit(X, np.ones(20))
    for method in (clf.predict, clf.predict_proba, clf.decision_function):
        with pytest.raises(NotFittedError):
            method(X)


# ----------------------------------------------------------------------- as an estimator


def test_parameters_of_the_detector(X):
    clf = make()
    assert clf.get_params()["detector__coreset_size"] == 0.1
    assert clone(clf).set_params(detector__n_neighbors=3).detector.n_neighbors == 3
    search = GridSearchCV(
        clf, {"detector__n_neighbors": [1, 3], "method": ["isotonic", "sigmoid"]},
        scoring="roc_auc", cv=StratifiedKFold(2),
    ).fit(X, coded("-1"))  # fmt: skip
    assert search.best_score_ == 1.0
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_pickles(X, fitted):
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    with pytest.raises(TypeError, match="DefectClassifier is no detector"):
        skad.save(fitted, "classifier.skad")


def test_html(fitted):
    page = estimator_html_repr(fitted)
    assert "DefectClassifier" in page
    assert "PatchCoreDetector" in page


def test_a_pipeline_within(X, learned):
    pipeline = make_pipeline(FunctionTransformer(cut), make().detector)
    clf = DefectClassifier(pipeline, defect_label=-1)
    assert "detector__patchcoredetector__n_neighbors" in clf.get_params()
    assert (clf.fit(X, coded("-1")).predict(X) == coded("-1")).all()
    assert learned == [(14, 0)]


@pytest.mark.parametrize("hold", ["alone", "pipeline", "search", "fixed", "tuned"])
def test_heat_maps_of_what_holds_it(X, hold):
    y, clf = coded("-1"), make()
    model = {
        "alone": clf,
        "pipeline": make_pipeline(FunctionTransformer(cut), clf),
        "search": GridSearchCV(clf, {"method": ["sigmoid"]}, cv=StratifiedKFold(2)),
        "fixed": FixedThresholdClassifier(clf, threshold=0.3),
        "tuned": TunedThresholdClassifierCV(clf, cv=2),
    }[hold].fit(X, y)
    found = unwrap(model)
    images = cut(X) if hold == "pipeline" else X
    alone = clone(clf.detector).fit(images[~IS_DEFECTIVE])
    np.testing.assert_array_equal(
        found.detector.predict_heatmap(found.images(X[-2:])), alone.predict_heatmap(images[-2:])
    )


def test_aurocs_agree(X, fitted):
    expected = image_auroc(coded("-1"), fitted.detector_.score_samples(X))
    assert image_auroc(coded("-1"), fitted.decision_function(X)) == expected
