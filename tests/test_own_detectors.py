"""A detector of one's own, as the documentation of its base has it, keeps the whole contract."""

import doctest
import pickle

import numpy as np
import pytest

from skad.base import BaseImageDetector
from skad.utils.estimator_checks import parametrize_with_image_checks


def documented_detector():
    """The class in the example of `BaseImageDetector`, in a module that pickles can name."""
    (example,) = doctest.DocTestFinder(recurse=False).find(BaseImageDetector)
    source = next(part.source for part in example.examples if part.source.startswith("class "))
    namespace = {"__name__": __name__}
    exec("import numpy as np\nfrom skad.base import *\n" + source, namespace)
    return namespace["TemplateDetector"]


TemplateDetector = documented_detector()


@parametrize_with_image_checks([TemplateDetector(image_size=64, random_state=0)])
def test_image_check(detector, check):
    check(detector)


def test_is_short():
    """Forty lines, but for the list of parameters."""
    (example,) = doctest.DocTestFinder(recurse=False).find(BaseImageDetector)
    source = next(part.source for part in example.examples if part.source.startswith("class "))
    assert len([line for line in source.splitlines() if line.strip()]) <= 44


@pytest.mark.parametrize("params", [{}, {"contamination": 0.2}, {"geometry": "crop"}])
def test_thresholds_and_maps(good, defective, params):
    det = TemplateDetector(image_size=64, target_false_alarm_rate=0.2, **params).fit(good)
    assert (det.predict(defective) == -1).all()
    maps, scores = det.predict_heatmap(defective, return_scores=True)
    np.testing.assert_array_equal(scores, det.score_samples(defective))
    assert maps.shape == defective.shape[:3]
    again = pickle.loads(pickle.dumps(det))
    np.testing.assert_array_equal(again.score_samples(defective), scores)
