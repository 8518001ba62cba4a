"""Scores and evidence over time: what is drawn, of which images, and the line in the report."""

import numpy as np
import pytest
from conftest import make_detector
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skad.metrics import DriftMonitor

pytest.importorskip("matplotlib")
from skad.inspection import DriftDisplay
from skad.inspection._report_content import Findings, summarise


@pytest.fixture(scope="module")
def det(good):
    return make_detector().fit(good)


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def drifting_scores():
    rng = np.random.default_rng(0)
    return rng.normal(size=100), np.concatenate([rng.normal(size=80), rng.normal(size=40) + 2])


def test_from_predictions():
    calibration, scores = drifting_scores()
    display = DriftDisplay.from_predictions(calibration, scores, threshold=-1.5, name="line 3")
    monitor = DriftMonitor(calibration, threshold=-1.5).update(scores)
    assert display.monitor.alarm_at_ == monitor.alarm_at_ > 80
    upper, lower = display.axes_
    assert upper.get_title() == f"line 3, alarm at image {monitor.alarm_at_}"
    good, defective = (points.get_offsets() for points in upper.collections)
    np.testing.assert_array_equal(good[:, 1], -scores[scores >= -1.5])
    np.testing.assert_array_equal(defective[:, 0], np.flatnonzero(scores < -1.5))
    assert display.threshold_line_.get_ydata()[0] == 1.5
    assert labels(upper)[0] == f"called good ({len(good)})"
    np.testing.assert_allclose(
        display.evidence_line_.get_ydata(), 10**monitor.log10_evidence_, rtol=1e-12
    )
    assert lower.get_yscale() == "log"
    assert display.alarm_line_.get_ydata()[0] == 20
    assert labels(lower) == ["evidence", "alarm at 20"]
    assert "DriftDisplay" in display._repr_html_()


def test_from_a_monitor_that_has_forgotten():
    calibration, scores = drifting_scores()
    monitor = DriftMonitor(calibration, memory=30, level=0.1).update(scores)
    display = DriftDisplay.from_monitor(monitor)
    monitor.update(scores)
    display.plot()
    np.testing.assert_array_equal(display.evidence_line_.get_xdata(), np.arange(90, 120))
    assert display.threshold_line_ is None
    assert labels(display.axes_[0]) == ["images (30)"]
    assert labels(display.axes_[1]) == ["evidence", "alarm at 10"]


def test_on_axes_of_the_users():
    from matplotlib.figure import Figure

    axes = Figure().subplots(2)
    display = DriftDisplay.from_predictions([1.0, 2.0], [1.5], axes=axes)
    assert display.figure_ is axes[0].figure
    assert display._repr_html_() is None
    assert axes[0].get_title() == "no alarm"


def test_evidence_that_no_axis_holds():
    rng = np.random.default_rng(0)
    monitor = DriftMonitor(rng.normal(size=1000)).update(rng.normal(size=800) - 9)
    assert monitor.log10_evidence_[-1] > 120
    display = DriftDisplay.from_monitor(monitor)
    display.figure_.canvas.draw()
    assert display.evidence_line_.get_ydata().max() == 1e100


@pytest.mark.parametrize("count", ["good", "all"])
def test_from_estimator(det, good, defective, count):
    X = np.concatenate([good[:4], defective])
    pipeline = make_pipeline(FunctionTransformer(lambda X: X), det)
    display = DriftDisplay.from_estimator(pipeline, X, count=count, level=0.2, random_state=3)
    scores = det.score_samples(X)
    threshold = det.offset_ if count == "good" else None
    monitor = DriftMonitor(
        det.calibration_scores_, threshold=threshold, level=0.2, random_state=3
    ).update(scores)
    np.testing.assert_array_equal(display.monitor.p_values_, monitor.p_values_)
    assert display.monitor.n_counted_ == (np.sum(scores > det.offset_) if count == "good" else 8)
    assert display.threshold_line_.get_ydata()[0] == -det.offset_
    assert display.axes_[0].get_title().startswith("PatchCoreDetector, ")


def test_what_cannot_be_drawn(det, good):
    with pytest.raises(ValueError, match=r"has seen no image: call update\(scores\) first"):
        DriftDisplay.from_monitor(DriftMonitor([1.0]))
    with pytest.raises(ValueError, match="count='some' must be one of"):
        DriftDisplay.from_estimator(det, good, count="some")
    one_shot = make_detector(contamination=0.1).fit(good[:1])
    with pytest.raises(ValueError, match=r"pass the scores to skad\.metrics\.DriftMonitor"):
        DriftDisplay.from_estimator(one_shot, good)


# ------------------------------------------------------------------ in the report


class Calibrated:
    """A detector as a report sees it."""

    contamination = 0.1
    offset_ = heatmap_threshold_ = -1.5

    def __init__(self, calibration_scores):
        self.calibration_scores_ = calibration_scores


def line_of(detector, scores, y=None):
    figures = dict(summarise(Findings(detector, np.asarray(scores), y, None)))
    return figures["drift from the training images"]


def test_the_line_in_the_report():
    calibration, scores = drifting_scores()
    detector = Calibrated(calibration)
    called_good = np.sum(scores > -1.5)
    mean = np.nanmean(DriftMonitor(calibration, threshold=-1.5).update(scores).p_values_)
    assert line_of(detector, scores) == (
        f"an alarm in {called_good} images called good; mean p-value {mean:.2f}, 0.5 without drift"
    )
    # Of labelled images the good ones count, whatever they are called.
    y = np.where(np.arange(len(scores)) < 80, 1, -1)
    mean = DriftMonitor(calibration).update(scores[:80]).p_values_.mean()
    assert line_of(detector, scores, y) == (
        f"no alarm in 80 images labelled good; mean p-value {mean:.2f}, 0.5 without drift"
    )


def test_the_report_where_nothing_can_be_told():
    calibration, scores = drifting_scores()
    assert line_of(Calibrated(None), scores) == (
        "cannot be told: the detector has no calibration scores"
    )
    nothing = line_of(Calibrated(calibration), [-5.0, -1.5])
    assert nothing == "cannot be told: no image is called good"
    y = np.array([-1, -1])
    assert line_of(Calibrated(calibration), [0.0, 1.0], y) == (
        "cannot be told: no image is labelled good"
    )
