"""scikit-learn's own common checks, none of them switched off."""

import pytest
from conftest import make_detector
from sklearn.utils.estimator_checks import parametrize_with_checks

# scikit-learn wants to see outliers among the training images themselves. The threshold from
# leave-one-image-out scores rightly finds none at low rates: an image that is in the bank looks good.
DETECTORS = [
    make_detector(coreset_size=0.05, target_false_alarm_rate=0.45, n_jobs=1),
    make_detector(coreset_size=0.05, target_false_alarm_rate=0.45, n_jobs=1, geometry="pad", b=2),
]


@pytest.mark.filterwarnings("ignore:y holds:UserWarning")
@pytest.mark.filterwarnings("ignore:the image AUROC")
@pytest.mark.filterwarnings("ignore:target_false_alarm_rate:UserWarning")
@parametrize_with_checks(DETECTORS)
def test_scikit_learn_check(estimator, check):
    check(estimator)
