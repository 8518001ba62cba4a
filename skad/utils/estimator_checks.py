"""What every detector of images must do, beyond scikit-learn's own checks.

scikit-learn's checks know rows of numbers. These know images: that a score does not depend on the
neighbours in a batch, that a heat map lies where the image is, that a defective image is never learned
from. They run on skad's detectors in its tests, and on anyone's that follow the same contract::

    from skad.utils.estimator_checks import parametrize_with_image_checks

    @parametrize_with_image_checks([MyDetector()])
    def test_image_check(detector, check):
        check(detector)
"""

from __future__ import annotations

import copy
import pickle
import pickletools
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skad._common.forks import LOADING
from skad._sklearn_compat import SKLEARN_VERSION

__all__ = [
    "check_image_detector",
    "expected_failed_checks",
    "image_checks",
    "parametrize_with_image_checks",
]

_HEIGHT, _WIDTH = 40, 48


def good_images(n: int = 14, seed: int = 0) -> np.ndarray:
    """Make images of a common texture: (n, 40, 48, 3) uint8."""
    rng = np.random.default_rng(seed)
    wave = 110 + 40 * np.sin(np.arange(_WIDTH) / 3)[None, None, :, None]
    noise = rng.normal(0, 8, size=(n, _HEIGHT, _WIDTH, 3))
    return np.clip(wave + noise, 0, 255).astype(np.uint8)


def defective_images(n: int = 4, seed: int = 1) -> np.ndarray:
    """Make the same with a bright square: (n, 40, 48, 3) uint8."""
    images = good_images(n, seed)
    images[:, 8:24, 26:42] = 250
    return images


@contextmanager
def _few_images() -> Iterator[None]:
    """Surround what a dozen images promise no small rate for, which is not the point here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "target_false_alarm_rate", UserWarning)
        yield


def _fitted(detector: Any, X: Any = None, y: Any = None) -> Any:
    with _few_images():
        return clone(detector).fit(good_images() if X is None else X, y)


def check_finds_gross_defects(detector: Any) -> None:
    """Score images with a square as bright as nothing else lower than good ones not seen before."""
    fitted = _fitted(detector)
    new = fitted.score_samples(good_images(seed=2))
    assert fitted.score_samples(defective_images()).max() < new.min()


def check_conventions(detector: Any) -> None:
    """Keep to shapes, types and signs: decision = score - offset, +1 good, -1 defective, AUROC."""
    fitted, good, defective = _fitted(detector), good_images(), defective_images()
    X, y = np.concatenate([good, defective]), np.repeat([1, -1], [len(good), len(defective)])
    scores = fitted.score_samples(X)
    assert scores.shape == (len(X),)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(fitted.decision_function(X), scores - fitted.offset_)
    np.testing.assert_array_equal(fitted.predict(X), np.where(scores >= fitted.offset_, 1, -1))
    assert fitted.score(X, y) == 1.0


def check_heatmaps(detector: Any) -> None:
    """Return maps in the coordinates of the images, higher where the defect is."""
    fitted, images = _fitted(detector), defective_images()
    maps, scores = fitted.predict_heatmap(images, return_scores=True)
    assert maps.shape == (len(images), _HEIGHT, _WIDTH)
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(scores, fitted.score_samples(images))
    np.testing.assert_array_equal(maps, fitted.predict_heatmap(images))
    seen = ~np.isnan(maps)
    inside = np.zeros(maps.shape, dtype=bool)
    inside[:, 8:24, 26:42] = True
    assert maps[inside & seen].mean() > maps[~inside & seen].mean()


def check_images_of_several_sizes(detector: Any) -> None:
    """Return a list of maps, each as large as its image."""
    fitted = _fitted(detector)
    images = [good_images()[0], good_images()[1, :36], good_images()[2, :, :44]]
    maps = fitted.predict_heatmap(images)
    assert isinstance(maps, list)
    assert [m.shape for m in maps] == [(40, 48), (36, 48), (40, 44)]


def check_kinds_of_input(detector: Any) -> None:
    """Score paths, PIL images, arrays and floats of the same pixels bitwise the same."""
    fitted, X = _fitted(detector), good_images()[:3]
    expected = fitted.score_samples(X)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.png" for i in range(len(X))]
        for path, image in zip(paths, X, strict=True):
            Image.fromarray(image).save(path)
        kinds: dict[str, Any] = {
            "paths": paths,
            "texts": np.array([str(path) for path in paths]),
            "PIL": [Image.fromarray(image) for image in X],
            "list": list(X),
            "float32": X.astype(np.float32) / np.float32(255),
        }
        for name, images in kinds.items():
            np.testing.assert_array_equal(fitted.score_samples(images), expected, err_msg=name)


def check_independence_of_the_batch(detector: Any) -> None:
    """Let score and map of an image depend neither on its neighbours nor on their order."""
    fitted = _fitted(detector)
    X = np.concatenate([good_images(5), defective_images(4)])
    scores, maps = fitted.score_samples(X), fitted.predict_heatmap(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_array_equal(fitted.score_samples(X[order]), scores[order])
    for i in range(len(X)):
        np.testing.assert_array_equal(fitted.score_samples(X[i : i + 1]), scores[i : i + 1])
        np.testing.assert_array_equal(fitted.predict_heatmap(X[i : i + 1])[0], maps[i])


def check_defective_images_are_not_learned(detector: Any) -> None:
    """Learn from a mixed set with labels what is learned from its good images alone."""
    good, defective = good_images(), defective_images()
    X = np.concatenate([good[:6], defective, good[6:]])
    y = np.repeat([1, -1, 1], [6, len(defective), len(good) - 6])
    mixed, alone = _fitted(detector, X, y), _fitted(detector, good)
    np.testing.assert_array_equal(mixed.score_samples(X), alone.score_samples(X))
    assert mixed.offset_ == alone.offset_


def check_fit_repeats(detector: Any) -> None:
    """Make two fits with one random_state bitwise equal, and leave X as it was."""
    X = good_images()
    before = X.copy()
    first, second = _fitted(detector, X), _fitted(detector, X)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(first.score_samples(X), second.score_samples(X))
    assert first.offset_ == second.offset_


def modules_in_pickle(detector: Any) -> set[str]:
    """Top-layer modules whose classes and functions the pickle of an object refers to."""
    # Up to protocol 2 every reference is an instruction of its own; empty arrays are made by `bytes`.
    instructions = pickletools.genops(pickle.dumps(detector, protocol=2))
    references = [str(name) for code, name, _ in instructions if code.name == "GLOBAL"]
    others = [reference for reference in references if reference != "__builtin__ bytes"]
    return {reference.split()[0].split(".")[0] for reference in others}


def check_pickles(detector: Any) -> None:
    """Score bitwise the same from a pickle, which holds no tensor, even after a prediction."""
    fitted, X = _fitted(detector), defective_images()
    scores, maps = fitted.score_samples(X), fitted.predict_heatmap(X)
    assert not modules_in_pickle(fitted) & {"torch", "torchvision", "timm", "faiss"}
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.score_samples(X), scores)
    np.testing.assert_array_equal(loaded.predict_heatmap(X), maps)


def check_p_values(detector: Any) -> None:
    """Give p-values that are ranks among scores of held-out good images."""
    fitted = _fitted(detector)
    n = len(fitted.calibration_scores_)
    p = fitted.anomaly_p_value(np.concatenate([good_images(), defective_images()]))
    assert ((p > 0) & (p <= 1)).all()
    np.testing.assert_allclose(p * (n + 1), np.round(p * (n + 1)))
    assert (p[-4:] == 1 / (n + 1)).all()


def check_p_values_are_valid(detector: Any) -> None:
    """Give new good images p-values that are uniform, or larger: no excess of false alarms."""
    n, m = 30, 60
    images = good_images(n + m, seed=3)
    fitted = _fitted(detector, images[:n])
    p = fitted.anomaly_p_value(images[n:])
    # Four standard deviations of what chance does to uniform values and to their calibration.
    spread = 4 * np.sqrt(1 / m + 1 / len(fitted.calibration_scores_))
    assert p.mean() >= 0.5 - spread * np.sqrt(1 / 12)
    for rate in (0.1, 0.2, 0.4):
        assert np.mean(p <= rate) <= rate + spread * np.sqrt(rate * (1 - rate))
    assert p.min() < 1  # p-values that are always 1 would be valid, and useless


def check_one_threshold(detector: Any) -> None:
    """Call an image defective exactly if something in it lies above the threshold of its map.

    A detector whose `image_score` is not "map" has two thresholds, and passes.
    """
    fitted, good = _fitted(detector), good_images(7, seed=4)
    if not fitted._has_one_threshold():
        return
    images = [*good, *defective_images(2), good[0][:33], np.repeat(good[1], 4, axis=1)]
    with _few_images():
        fitted.calibrate(good)
    if fitted.contamination == "auto":
        fitted.calibrate(target_false_alarm_rate=0.25)
        # One of the images lies at the threshold: not below it, and nothing of it above.
        assert fitted.offset_ + fitted._margin == np.sort(fitted.score_samples(good))[1]
    assert fitted.heatmap_threshold_ == -fitted.offset_
    verdicts = fitted.predict(images)
    assert set(verdicts) == {1, -1}
    found = [len(regions) > 0 for regions in fitted.predict_regions(images)]
    np.testing.assert_array_equal(found, verdicts == -1)


def _thresholds(fitted: Any, X: Any) -> list[Any]:
    """Everything that moves with a threshold."""
    p = fitted.anomaly_p_value(X).tolist()
    return [fitted.offset_, fitted.heatmap_threshold_, *p, *fitted.predict(X).tolist()]


def check_calibrate(detector: Any) -> None:
    """Move the threshold as a fit would, or to fresh images, and stay as it was where that fails."""
    fitted, fresh = _fitted(detector), good_images(9, seed=6)
    X = np.concatenate([good_images(2), defective_images(2)])
    scores = fitted.score_samples(X)
    if fitted.contamination == "auto":
        refit = _fitted(clone(detector).set_params(target_false_alarm_rate=0.5))
        by_calibrate, by_set_params, assigned = (copy.deepcopy(fitted) for _ in range(3))
        by_calibrate.calibrate(target_false_alarm_rate=0.5)
        by_set_params.set_params(target_false_alarm_rate=0.5)
        for moved in (by_calibrate, by_set_params):
            assert moved.target_false_alarm_rate == 0.5
            assert _thresholds(moved, X) == _thresholds(refit, X)
        assigned.target_false_alarm_rate = 0.5
        _must_raise(ValueError, assigned.predict, X)
    with _few_images():
        assert fitted.calibrate(fresh) is fitted
    of_fresh = fitted.score_samples(fresh)
    np.testing.assert_array_equal(fitted.calibration_scores_, np.sort(of_fresh))
    ranks = (of_fresh[None] <= of_fresh[:, None] + fitted._margin).sum(axis=1)
    np.testing.assert_allclose(fitted.anomaly_p_value(fresh) * 10, 1 + ranks)
    np.testing.assert_array_equal(fitted.score_samples(X), scores)
    before = _thresholds(fitted, X)
    unusable: tuple[Any, ...] = ([], fresh[:1], None)
    for images in unusable:
        _must_raise(ValueError, fitted.calibrate, images)
    assert _thresholds(fitted, X) == before
    assert _thresholds(pickle.loads(pickle.dumps(fitted)), X) == before


def check_training_scores(detector: Any) -> None:
    """Give the good images of X out-of-sample scores in their order, by which fit_predict judges."""
    good, defective = good_images(), defective_images()
    X = np.concatenate([good[:6], defective, good[6:]])
    y = np.repeat([1, -1, 1], [6, len(defective), len(good) - 6])
    fitted = clone(detector)
    with _few_images():
        found = fitted.fit_predict(X, y)
    scores = fitted.training_scores_
    assert scores.shape == (len(good),)
    assert scores.dtype == np.float64
    if fitted.contamination == "auto":
        assert np.isin(fitted.calibration_scores_, scores).all()
        judged = np.where(np.isnan(scores), fitted.score_samples(good), scores)
        np.testing.assert_array_equal(found[y == 1], np.where(judged >= fitted.offset_, 1, -1))
        np.testing.assert_array_equal(found[y == -1], fitted.predict(defective))
    percentile = clone(detector).set_params(contamination=0.2)
    np.testing.assert_array_equal(percentile.fit_predict(good), percentile.predict(good))


def check_errors(detector: Any) -> None:
    """Refuse missing files, NaN, empty input, and to score unfitted."""
    for images, error in (
        ([], ValueError),
        (["absent/image.png"], (ValueError, FileNotFoundError)),
        (np.full((3, _HEIGHT, _WIDTH), np.nan), ValueError),
        ("one path", (ValueError, TypeError)),
    ):
        _must_raise(error, clone(detector).fit, images)
    _must_raise(NotFittedError, clone(detector).score_samples, good_images(2))
    _must_raise(ValueError, _fitted(detector).score_samples, [])


def check_parameters_are_kept(detector: Any) -> None:
    """Change no parameter in a fit, and make unfitted clones."""
    before = {name: repr(value) for name, value in detector.get_params(deep=False).items()}
    fitted = _fitted(detector)
    after = {name: repr(value) for name, value in fitted.get_params(deep=False).items()}
    assert after == before
    _must_raise(NotFittedError, clone(fitted).score_samples, good_images(2))


def check_partial_fit(detector: Any) -> None:
    """Learn further good images and no defective ones, and stay as it was where that fails.

    A detector without ``partial_fit`` passes.
    """
    if not hasattr(detector, "partial_fit"):
        return
    good, new, defective = good_images(), good_images(seed=2), defective_images()
    whole = _fitted(detector, good)
    with _few_images():
        first = clone(detector).partial_fit(good)
        np.testing.assert_array_equal(first.score_samples(new), whole.score_samples(new))
        X, y = np.concatenate([new, defective]), np.repeat([1, -1], [len(new), len(defective)])
        grown = _fitted(detector, good).partial_fit(X, y)
    assert grown.n_images_ == len(good) + len(new)
    assert grown.score_samples(new).mean() > whole.score_samples(new).mean()
    assert grown.score_samples(defective).max() < grown.score_samples(good_images(seed=5)).min()
    before = grown.score_samples(X)
    unusable: tuple[Any, ...] = ([], np.full((3, _HEIGHT, _WIDTH), np.nan))
    for images in unusable:
        _must_raise(ValueError, grown.partial_fit, images)
    np.testing.assert_array_equal(grown.score_samples(X), before)


def _must_raise(error: Any, function: Callable, X: Any) -> None:
    try:
        function(X)
    except error:
        return
    raise AssertionError(f"{function} accepts {X!r}")


_CHECKS = (
    check_finds_gross_defects,
    check_conventions,
    check_heatmaps,
    check_images_of_several_sizes,
    check_kinds_of_input,
    check_independence_of_the_batch,
    check_defective_images_are_not_learned,
    check_fit_repeats,
    check_pickles,
    check_p_values,
    check_p_values_are_valid,
    check_one_threshold,
    check_calibrate,
    check_training_scores,
    check_errors,
    check_parameters_are_kept,
    check_partial_fit,
)


_OUT_OF_SAMPLE = {
    "check_outliers_train": "by design: with contamination='auto' the threshold comes from scores of "
    "models that have not seen the image, so all training images, which the detector has learned from, "
    "may lie on the good side",
    "check_outliers_fit_predict": "by design: with contamination='auto' fit_predict judges a training "
    "image by a model that has not seen it, and fit(X).predict(X) by one that has",
}
_SEEDS = (
    "scikit-learn sets the random_state of the estimator only, not those of detectors within it"
)
_OTHER_LABELS = "the y of this check does not hold the label that defect_label names"


def expected_failed_checks(detector: Any) -> dict[str, str]:
    """Tell which of scikit-learn's own checks a detector of skad does not pass, and why.

    Parameters
    ----------
    detector : estimator
        A detector, or a :class:`skad.DefectClassifier` with ``defect_label=1``: scikit-learn chooses y,
        which holds no other label in nearly all checks.

    Returns
    -------
    dict of str to str
        Names of checks and reasons, as scikit-learn's ``check_estimator`` and
        ``parametrize_with_checks`` take them for ``expected_failed_checks``.

    Examples
    --------
    >>> from skad import PatchCoreDetector
    >>> from skad.utils.estimator_checks import expected_failed_checks
    >>> sorted(expected_failed_checks(PatchCoreDetector()))
    ['check_outliers_fit_predict', 'check_outliers_train']
    """
    if hasattr(detector, "defect_label"):
        return _failed_by_classifier(detector.detector)
    expected: dict[str, str] = {}
    given = getattr(detector, "estimators", [("", detector)])
    members = [member for _, member in given if member != "drop"]
    if detector.contamination == "auto":
        expected |= _OUT_OF_SAMPLE
    if detector not in members and any(member.random_state is None for member in members):
        expected["check_fit_idempotent"] = _SEEDS
    return expected


def _failed_by_classifier(detector: Any) -> dict[str, str]:
    """Tell what a classifier around a detector does not pass; `defect_label` is 1, as in most checks."""
    expected = {"check_classifiers_classes": _OTHER_LABELS}
    if SKLEARN_VERSION < (1, 7):
        expected["check_dtype_object"] = _OTHER_LABELS
    while hasattr(detector, "steps"):
        detector = detector.steps[-1][1]
    if getattr(detector, "random_state", 0) is None or "check_fit_idempotent" in (
        expected_failed_checks(detector)
    ):
        expected["check_fit_idempotent"] = _SEEDS
    return expected


def image_checks() -> Iterator[Callable[[Any], None]]:
    """Yield the checks.

    Yields
    ------
    callable
        Takes an unfitted detector; raises AssertionError, or what the detector raises, if it fails.
    """
    yield from _CHECKS


def check_image_detector(detector: Any) -> None:
    """Run all checks on a detector.

    Parameters
    ----------
    detector : estimator
        Unfitted; it is cloned for every check. Set it up for images of 40 x 48 pixels, with an integer
        `random_state`.

    Raises
    ------
    AssertionError
        If it fails a check; the message begins with the name of the check.

    Examples
    --------
    >>> from skad import PatchCoreDetector
    >>> from skad.utils.estimator_checks import check_image_detector
    >>> check_image_detector(
    ...     PatchCoreDetector("skad_nano", image_size=32, coreset_size=0.1, random_state=0)
    ... )
    """
    for check in image_checks():
        try:
            check(detector)
        except AssertionError as error:
            raise AssertionError(f"{check.__name__}: {error}") from error


def parametrize_with_image_checks(detectors: list[Any]) -> Any:
    """Make a pytest test of every check and detector; the test takes ``(detector, check)``.

    Parameters
    ----------
    detectors : list of estimators
        As for :func:`check_image_detector`.

    Returns
    -------
    pytest.MarkDecorator
    """
    with LOADING:
        import pytest

    cases = [
        pytest.param(detector, partial(check), id=f"{type(detector).__name__}-{check.__name__}")
        for detector in detectors
        for check in image_checks()
    ]
    return pytest.mark.parametrize(("detector", "check"), cases)
