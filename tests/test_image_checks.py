"""The common checks of image detectors, on all detectors; and the checks themselves on bad ones."""

import numpy as np
import pytest
from conftest import (
    make_detector,
    make_dinomaly,
    make_padim,
    make_reconpatch,
    make_recontrast,
    make_spade,
)

from skad import PatchCoreDetector, ScoreFusionDetector
from skad.utils.estimator_checks import (
    check_calibrate,
    check_defective_images_are_not_learned,
    check_heatmaps,
    check_image_detector,
    check_independence_of_the_batch,
    check_one_threshold,
    check_p_values_are_valid,
    check_partial_fit,
    check_pickles,
    check_training_scores,
    parametrize_with_image_checks,
)

DETECTORS = [
    make_detector(),
    make_detector(image_size=64, geometry="pad", b=2, image_score="patch"),
    make_reconpatch(image_size=48, epochs=1, train_batch_size=512),
    make_recontrast(max_iter=3),
    make_dinomaly(max_iter=4, lr=1e-2, image_size=32),
    make_spade(),
    make_spade(geometry="pad", image_score="map", kappa=2),
    make_padim(image_size=(64, 48), geometry="pad", image_score=0.01),
    ScoreFusionDetector(
        [("bank", make_detector()), ("deep", make_detector(layers=(2,), image_size=48))],
        target_false_alarm_rate=0.2,
    ),
]


@parametrize_with_image_checks(DETECTORS)
def test_image_check(detector, check):
    check(detector)


def test_all_at_once_names_the_check():
    class Shifted(PatchCoreDetector):
        def predict_heatmap(self, X, return_scores=False):
            maps, scores = super().predict_heatmap(X, return_scores=True)
            maps = maps[..., ::-1] if isinstance(maps, np.ndarray) else [m[:, ::-1] for m in maps]
            return (maps, scores) if return_scores else maps

    params = make_detector(image_size=64).get_params()
    with pytest.raises(AssertionError, match="check_heatmaps: "):
        check_image_detector(Shifted(**params))


class Normalising(PatchCoreDetector):
    """Divides by the largest score of the batch, as careless code does."""

    def score_samples(self, X):
        scores = super().score_samples(X)
        return scores / np.abs(scores).max()


class Greedy(PatchCoreDetector):
    """Learns from defective images too."""

    def fit(self, X, y=None):
        return super().fit(X)


class Unpicklable(PatchCoreDetector):
    """Takes a tensor along."""

    def fit(self, X, y=None):
        import torch

        self.tensor_ = torch.zeros(3)
        return super().fit(X, y)


class Overconfident(PatchCoreDetector):
    """Takes its p-values from scores of images that are in the bank."""

    def fit(self, X, y=None):
        super().fit(X, y)
        self.calibration_scores_ = np.sort(self.score_samples(X))
        return self


class Misplaced(PatchCoreDetector):
    """Mirrors its heat maps."""

    def predict_heatmap(self, X, return_scores=False):
        maps, scores = super().predict_heatmap(X, return_scores=True)
        return (maps[:, ::-1, ::-1], scores) if return_scores else maps[:, ::-1, ::-1]


class Forgetful(PatchCoreDetector):
    """Fits anew on what is new, as if nothing had been before."""

    def partial_fit(self, X, y=None):
        return self.fit(X, y)


class Lenient(PatchCoreDetector):
    """Calls hardly anything defective, whatever is outlined."""

    def predict(self, X):
        return np.where(self.score_samples(X) >= 2 * self.offset_, 1, -1)


class Stubborn(PatchCoreDetector):
    """Keeps its threshold."""

    def calibrate(self, X=None, *, target_false_alarm_rate=None):
        return self


class Complacent(PatchCoreDetector):
    """Judges training images by a bank that knows them."""

    def fit_predict(self, X, y=None):
        return self.fit(X, y).predict(X)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Normalising, check_independence_of_the_batch),
        (Greedy, check_defective_images_are_not_learned),
        (Unpicklable, check_pickles),
        (Overconfident, check_p_values_are_valid),
        (Misplaced, check_heatmaps),
        (Forgetful, check_partial_fit),
        (Lenient, check_one_threshold),
        (Stubborn, check_calibrate),
        (Complacent, check_training_scores),
    ],
)
def test_checks_can_fail(kind, check):
    with pytest.raises(AssertionError):
        check(kind(**make_detector(coreset_size=0.5).get_params()))
