"""DriftMonitor: p-values and evidence by hand, the level, what it remembers, what it refuses."""

import copy
import json
import pickle

import numpy as np
import pytest

from skad.metrics import DriftMonitor


def ties_broken_by(seed, n):
    return np.random.default_rng(seed).random(n)


def test_p_values_are_ranks_among_calibration_scores_and_images_before():
    theta = ties_broken_by(3, 4)
    monitor = DriftMonitor([1.0, 2.0, 2.0, 4.0], random_state=3).update([3.0, 0.0, 2.0, 5.0])
    # Lower scores, a random part of those that are equal (the image itself among them), of how many.
    expected = [(3 + theta[0]) / 5, theta[1] / 6, (2 + 3 * theta[2]) / 7, (7 + theta[3]) / 8]
    np.testing.assert_allclose(monitor.p_values_, expected, rtol=1e-15)


def test_evidence_is_the_capital_of_nine_bets():
    monitor = DriftMonitor([0.0], random_state=0).update([1.0, -1.0])
    p = monitor.p_values_
    bets = [
        lambda p: 1,
        lambda p: 1.5 - p,
        lambda p: 0.5 + p,
        lambda p: 2 - 2 * p,
        lambda p: 2 * p,
        lambda p: 4 * (1 - p) ** 3,
        lambda p: 4 * p**3,
        lambda p: 0.5 + 1.5 * (2 * p - 1) ** 2,
        lambda p: 6 * p * (1 - p),
    ]
    first = np.array([bet(p[0]) for bet in bets]) / 9
    spread_anew = first + (first.mean() - first) / 1002
    second = spread_anew * [bet(p[1]) for bet in bets]
    np.testing.assert_allclose(10**monitor.log10_evidence_, [first.sum(), second.sum()], rtol=1e-13)


def test_no_bet_gains_on_average():
    """The capital after one image, averaged over a uniform p-value, is that of before."""
    monitor = DriftMonitor([0.0])
    uniform = (np.arange(500) + 0.5) / 500
    capital = []
    for p_value in uniform:
        bets = copy.deepcopy(monitor._bets)
        bets.settle(p_value)
        capital.append(10**bets.log10_capital)
    assert np.mean(capital) == pytest.approx(1, abs=1e-5)


def alarm_rate(n_streams, n_calibration, length, **settings):
    rng = np.random.default_rng(0)
    alarms = 0
    for i in range(n_streams):
        calibration, stream = rng.normal(size=n_calibration), rng.normal(size=length)
        alarms += DriftMonitor(calibration, random_state=i, **settings).update(stream).is_drifting_
    return alarms / n_streams


@pytest.mark.parametrize("settings", [{}, {"memory": 40}])
def test_level(settings):
    """A level of 20 %, which needs fewer streams to be seen than one of 5 %."""
    assert alarm_rate(100, 20, 150, level=0.2, **settings) <= 0.2 + 2 * np.sqrt(0.16 / 100)


def test_level_among_images_called_good():
    """The threshold is one of the calibration scores; missed defects are not among the images."""
    rng, alarms = np.random.default_rng(1), 0
    for i in range(100):
        calibration, stream = rng.normal(size=20), rng.normal(size=150)
        stream -= 8 * (rng.random(150) < 0.1)
        threshold = np.sort(calibration)[3]
        monitor = DriftMonitor(calibration, threshold=threshold, level=0.2, random_state=i)
        alarms += monitor.update(stream).is_drifting_
    assert alarms / 100 <= 0.2 + 2 * np.sqrt(0.16 / 100)


@pytest.mark.parametrize(
    ("change", "within"),
    [(lambda x: x - 1, 60), (lambda x: x + 1, 60), (lambda x: 2 * x, 150), (lambda x: x / 2, 100)],
)
def test_finds_shifts_and_other_spreads(change, within):
    rng = np.random.default_rng(0)
    stream = rng.normal(size=300)
    stream[100:] = change(stream[100:])
    monitor = DriftMonitor(rng.normal(size=200)).update(stream)
    assert 100 <= monitor.alarm_at_ < 100 + within
    evidence = monitor.log10_evidence_
    assert evidence[monitor.alarm_at_] >= np.log10(20) > evidence[: monitor.alarm_at_].max()


def test_which_images_count():
    """Those above the threshold, on both sides; the one at the threshold on neither."""
    calibration, scores = [1.0, 2.0, 3.0, 4.0], [0.5, 3.5, 2.0, 2.5, -9.0]
    monitor = DriftMonitor(calibration, threshold=2.0).update(scores)
    assert (monitor.n_images_, monitor.n_counted_) == (5, 2)
    np.testing.assert_array_equal(np.isnan(monitor.p_values_), [True, False, True, False, True])
    alone = DriftMonitor([3.0, 4.0]).update([3.5, 2.5])
    np.testing.assert_array_equal(monitor.p_values_[[1, 3]], alone.p_values_)
    assert monitor.log10_evidence_[0] == 0
    assert monitor.log10_evidence_[4] == alone.log10_evidence_[1]


def stream_with_drift():
    rng = np.random.default_rng(5)
    scores = np.concatenate([rng.normal(size=150), rng.normal(size=80) + 1.5])
    return rng.normal(size=30).round(1), scores.round(1)  # with ties


def assert_same(monitor, other):
    for name in ("scores_", "p_values_", "log10_evidence_", "alarm_at_", "n_images_", "n_counted_"):
        np.testing.assert_array_equal(getattr(monitor, name), getattr(other, name))


@pytest.mark.parametrize("memory", [20_000, 50])
def test_chunks_make_no_difference(memory):
    calibration, scores = stream_with_drift()
    whole = DriftMonitor(calibration, threshold=-1.5, memory=memory).update(scores)
    parts = DriftMonitor(calibration, threshold=-1.5, memory=memory)
    for part in np.split(scores, [1, 2, 90, 200]):
        assert parts.update(part) is parts
    assert whole.is_drifting_
    assert_same(whole, parts)


@pytest.mark.parametrize(
    "again",
    [
        copy.deepcopy,
        lambda monitor: pickle.loads(pickle.dumps(monitor)),
        lambda monitor: DriftMonitor.from_json(monitor.to_json()),
    ],
    ids=["copy", "pickle", "json"],
)
@pytest.mark.parametrize("begun", [0, 100])
def test_goes_on_where_it_stopped(again, begun):
    calibration, scores = stream_with_drift()
    settings = {"threshold": -1.5, "level": 0.1, "memory": 60, "random_state": 7}
    monitor = DriftMonitor(calibration, **settings)
    if begun:
        monitor.update(scores[:begun])
    restored = again(monitor)
    assert_same(restored, monitor)
    monitor.update(scores[begun:])
    restored.update(scores[begun:])
    assert monitor.is_drifting_
    assert_same(restored, monitor)
    assert (restored.level, restored.threshold, restored.memory) == (0.1, -1.5, 60)


def test_memory_is_bounded():
    rng = np.random.default_rng(0)
    monitor = DriftMonitor(rng.normal(size=500), memory=100).update(rng.normal(size=1000))
    assert len(monitor._ranks.scores) == len(monitor.scores_) == len(monitor.p_values_) == 100
    assert monitor.n_images_ == monitor.n_counted_ == 1000
    assert len(monitor.to_json()) < 20_000
    assert np.all(np.diff(monitor._ranks.scores) >= 0)


def test_the_seed_breaks_ties():
    calibration, scores = np.ones(20), np.ones(10)
    p_values = DriftMonitor(calibration, random_state=1).update(scores).p_values_
    assert len(np.unique(p_values)) == 10
    again = DriftMonitor(calibration, random_state=1).update(scores).p_values_
    np.testing.assert_array_equal(p_values, again)
    assert not np.any(p_values == DriftMonitor(calibration).update(scores).p_values_)


def test_an_alarm_is_never_taken_back():
    rng = np.random.default_rng(0)
    monitor = DriftMonitor(rng.normal(size=50)).update(rng.normal(size=60) - 2)
    at = monitor.alarm_at_
    assert monitor.update(rng.normal(size=500)).alarm_at_ == at
    assert f"alarm at image {at}" in repr(monitor)


def test_evidence_beyond_all_floats():
    rng = np.random.default_rng(0)
    monitor = DriftMonitor(rng.normal(size=3000)).update(rng.normal(size=1500) - 10)
    assert monitor.log10_evidence_[-1] > 400
    assert DriftMonitor.from_json(monitor.to_json()).log10_evidence_[-1] > 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "calibration_scores must be a list of at least one number"),
        (([[1.0, 2.0]],), r"got shape \(1, 2\)"),
        ((["a"],), "dtype"),
        (([1.0, np.nan],), "calibration_scores holds NaN or infinity, first at 1"),
        ((np.ma.array([1.0, 2.0], mask=[0, 1]),), "masked"),
        (([1.0], {"level": 0.0}), "level=0.0 must be a probability"),
        (([1.0], {"level": 1}), "level=1 must be"),
        (([1.0], {"level": "5 %"}), "level='5 %' must be"),
        (([1.0], {"threshold": np.nan}), "threshold=nan must be a number, such as det.offset_"),
        (([1.0], {"threshold": 1.0}), "no calibration score lies above threshold=1"),
        (([1.0], {"memory": 0}), "memory=0 must be an integer of at least 1"),
        (([1.0], {"random_state": None}), "random_state=None must be an integer"),
        (([1.0], {"random_state": True}), "random_state=True must be"),
    ],
)
def test_what_it_refuses(arguments, message):
    scores, settings = arguments if len(arguments) == 2 else (*arguments, {})
    with pytest.raises(ValueError, match=message):
        DriftMonitor(scores, **settings)


@pytest.mark.parametrize("scores", [[], [[1.0]], [1.0, np.inf], 1.0, ["a"]])
def test_scores_that_it_refuses_leave_it_as_it_was(scores):
    monitor = DriftMonitor([1.0, 2.0]).update([1.5])
    before = monitor.to_json()
    with pytest.raises(ValueError, match="scores "):
        monitor.update(scores)
    assert monitor.to_json() == before


@pytest.mark.parametrize("text", ["[]", "{}", json.dumps({"format": 99})])
def test_text_of_something_else(text):
    with pytest.raises(ValueError, match="not the state of a DriftMonitor"):
        DriftMonitor.from_json(text)
