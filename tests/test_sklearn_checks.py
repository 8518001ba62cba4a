"""scikit-learn's own common checks; what fails at the defaults, and why, is published."""

import inspect
from functools import partial

import numpy as np
import pytest
import tiny_resnet  # noqa: F401  registers the backbone
from conftest import (
    make_detector,
    make_dinomaly,
    make_padim,
    make_reconpatch,
    make_recontrast,
    make_spade,
)
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import (
    check_estimator,
    check_outliers_fit_predict,
    check_param_validation,
    estimator_checks_generator,
)

from skad import (
    DefectClassifier,
    DinomalyDetector,
    PaDiMDetector,
    PatchCoreDetector,
    ScoreFusionDetector,
    SPADEDetector,
)
from skad._sklearn_compat import SKLEARN_VERSION
from skad.utils.estimator_checks import expected_failed_checks

# scikit-learn wants to see outliers among the training images themselves. The threshold from
# leave-one-image-out scores rightly finds none at low rates: an image that is in the bank looks good.
# The smallest of backbones: what scikit-learn asks does not depend on it.
TINY = {"backbone": "tiny_resnet", "batch_size": 64}
# A check whose y held other labels at first.
OLD = SKLEARN_VERSION < (1, 7)
DETECTORS = [
    make_detector(
        **TINY,
        image_size=16,
        coreset_size=0.1,
        target_false_alarm_rate=0.45,
        n_jobs=1,
        geometry="pad",
        b=2,
        image_score="patch",
    ),
    make_reconpatch(
        **TINY,
        image_size=16,
        coreset_size=0.1,
        target_false_alarm_rate=0.45,
        n_jobs=1,
        epochs=1,
        train_batch_size=1024,
    ),
    make_recontrast(
        **{**TINY, "batch_size": 8}, max_iter=1, target_false_alarm_rate=0.45, n_jobs=1
    ),
    make_dinomaly(
        image_size=32,
        max_iter=1,
        batch_size=8,
        target_false_alarm_rate=0.45,
        layers=(1, 2),
        n_jobs=1,
    ),
    make_padim(**TINY, image_size=16, target_false_alarm_rate=0.45, n_jobs=1),
    make_spade(**TINY, image_size=16, k=2, target_false_alarm_rate=0.45, n_jobs=1),
    ScoreFusionDetector(
        [
            ("a", make_detector(**TINY, image_size=16, coreset_size=0.05, n_jobs=1)),
            ("b", make_detector(**TINY, image_size=16, coreset_size=0.05, layers=(2,), n_jobs=1)),
        ],
        target_false_alarm_rate=0.45,
    ),
]


def settings(check):
    """The name of a check and its arguments, defaults included: two texts."""
    given = inspect.signature(check.func).bind_partial(*check.args, **check.keywords)
    given.apply_defaults()
    options = {k: v for k, v in given.arguments.items() if k not in ("name", "estimator_orig")}
    return check.func.__name__, str(options)


# scikit-learn lists a check twice where it leaves a default out and writes it out: it runs once.
CHECKS = {
    "-".join([type(det).__name__, *settings(check)]): (det, check)
    for detector in DETECTORS
    for det, check in estimator_checks_generator(detector)
    if settings(check)[0] != "check_outliers_fit_predict"
}
# fit_predict judges training images by a model that has not seen them; with a percentile it is
# fit, then predict, as scikit-learn has it. `test_verdicts.py` holds that for the other detectors.
CHECKS |= {
    f"{type(detector).__name__}-percentile": (
        clone(detector).set_params(contamination=0.1),
        partial(check_outliers_fit_predict, type(detector).__name__),
    )
    for detector in DETECTORS
    if isinstance(detector, DinomalyDetector | PaDiMDetector | SPADEDetector)
}


@pytest.mark.filterwarnings("ignore:y holds:UserWarning")
@pytest.mark.filterwarnings("ignore:the image AUROC")
@pytest.mark.filterwarnings("ignore:target_false_alarm_rate:UserWarning")
@pytest.mark.filterwarnings("ignore::skad.exceptions.TabularDataWarning")
@pytest.mark.parametrize(("estimator", "check"), CHECKS.values(), ids=CHECKS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:y holds:UserWarning")
@pytest.mark.filterwarnings("ignore:the image AUROC")
@pytest.mark.filterwarnings("ignore:target_false_alarm_rate:UserWarning")
# Their y has nothing to do with X.
@pytest.mark.filterwarnings("ignore:defective images score:UserWarning")
@pytest.mark.filterwarnings("ignore::skad.exceptions.TabularDataWarning")
@pytest.mark.parametrize(
    "det",
    [
        PatchCoreDetector(**TINY, image_size=16, n_jobs=1),
        # Most checks have labels 0 and 1; the smallest detector, since there are many fits.
        DefectClassifier(
            make_detector(**TINY, image_size=16, coreset_size=8, n_jobs=1),
            defect_label=1,
        ),
    ],
    ids=lambda det: type(det).__name__,
)
def test_what_fails_is_published(det):
    expected = expected_failed_checks(det)
    results = check_estimator(det, on_fail=None, on_skip=None, expected_failed_checks=expected)
    assert len(results) >= 40
    assert {r["check_name"] for r in results if r["status"] == "failed"} == set()
    # Nothing is listed that passes.
    assert {r["check_name"] for r in results if r["status"] == "xfail"} == set(expected)


@pytest.mark.parametrize("det", DETECTORS, ids=lambda det: type(det).__name__)
def test_constraints_of_parameters_do_not_overlap(det):
    check_param_validation(type(det).__name__, det)


@pytest.mark.parametrize(
    ("det", "n"),
    [
        (make_detector(contamination=0.1), 0),
        (make_detector(), 2),
        (make_recontrast(), 2),
        (make_dinomaly(), 2),
        (make_padim(), 2),
        (make_spade(), 2),
        (ScoreFusionDetector([("a", make_detector()), ("b", make_detector())]), 2),
        (ScoreFusionDetector([("a", make_detector(random_state=None))], contamination=0.1), 1),
        (DefectClassifier(make_detector(random_state=None), defect_label=1), 2 + OLD),
        (DefectClassifier(make_pipeline(make_detector()), defect_label=1), 1 + OLD),
    ],
)
def test_expected_failures_depend_on_the_detector(det, n):
    assert len(expected_failed_checks(det)) == n
    assert all(len(reason) > 20 for reason in expected_failed_checks(det).values())


def test_grid_search_with_labels_in_folds_and_refit(good, defective):
    X = np.concatenate([good, defective])
    y = np.repeat([1, -1], [len(good), len(defective)])
    search = GridSearchCV(
        make_detector(), {"n_neighbors": [1, 3], "image_score": ["map", 0.1]}, cv=StratifiedKFold(2)
    ).fit(X, y)
    assert search.best_score_ == 1.0
    # The refit saw the good images only.
    alone = make_detector(**search.best_params_).fit(good)
    np.testing.assert_array_equal(search.score_samples(X), alone.score_samples(X))


def test_no_tag_switches_checks_off():
    tags = get_tags(make_detector())
    assert not tags.no_validation
    assert not tags.non_deterministic
    assert not tags._skip_test
    assert tags.estimator_type == "outlier_detector"
    checks = list(estimator_checks_generator(DETECTORS[0]))
    assert len(checks) >= 40
