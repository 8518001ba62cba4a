"""scikit-learn's own common checks, none of them switched off."""

import numpy as np
import pytest
from conftest import make_detector, make_reconpatch, make_recontrast
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from skad import ScoreFusionDetector

# scikit-learn wants to see outliers among the training images themselves. The threshold from
# leave-one-image-out scores rightly finds none at low rates: an image that is in the bank looks good.
DETECTORS = [
    make_detector(coreset_size=0.05, target_false_alarm_rate=0.45, n_jobs=1),
    make_detector(coreset_size=0.05, target_false_alarm_rate=0.45, n_jobs=1, geometry="pad", b=2),
    make_reconpatch(
        coreset_size=0.05, target_false_alarm_rate=0.45, n_jobs=1, epochs=1, train_batch_size=1024
    ),
    make_recontrast(max_iter=2, batch_size=16, target_false_alarm_rate=0.45, n_jobs=1),
    ScoreFusionDetector(
        [
            ("a", make_detector(coreset_size=0.05, n_jobs=1)),
            ("b", make_detector(levels=(2,), n_jobs=1)),
        ],
        target_false_alarm_rate=0.45,
    ),
]


@pytest.mark.filterwarnings("ignore:y holds:UserWarning")
@pytest.mark.filterwarnings("ignore:the image AUROC")
@pytest.mark.filterwarnings("ignore:target_false_alarm_rate:UserWarning")
@parametrize_with_checks(DETECTORS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


def test_grid_search_with_labels_in_folds_and_refit(good, defective):
    X = np.concatenate([good, defective])
    y = np.repeat([1, -1], [len(good), len(defective)])
    search = GridSearchCV(
        make_detector(), {"n_neighbors": [1, 3], "b": [None, 2]}, cv=StratifiedKFold(2)
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
