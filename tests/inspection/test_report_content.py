"""Which images a report shows, and what it says of them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from skad._images import Geometry
from skad._scoring.regions import regions_of

pytest.importorskip("matplotlib")
from skad.inspection._report_content import (
    Findings,
    choose,
    list_parameters,
    list_regions,
    name_file,
    summarise,
    verdict,
)
from skad.metrics import PixelCounts


def found(scores, labels, offset=-5.0, counts=None):
    detector = SimpleNamespace(
        offset_=offset, heatmap_threshold_=0.5, contamination="auto", target_false_alarm_rate=0.05,
        calibration_scores_=None,
    )  # fmt: skip
    return Findings(
        detector, np.array(scores), None if labels is None else np.array(labels), counts
    )


def test_worst_mistakes():
    """Mistakes in the order of their size, on both sides; at most n."""
    findings = found([-6, -9, -1, -7, -8, -2, -4, -3, -1, -9], [1] * 5 + [-1] * 5)
    alarms, missed = choose(findings, 3)
    assert (alarms.title, missed.title) == ("False alarms", "Missed defects")
    assert alarms.indices.tolist() == [1, 4, 3]
    assert missed.indices.tolist() == [8, 5, 7]
    assert alarms.text == "Good images called defective: 4 of 5. The worst 3 are shown."
    assert missed.text == "Defective images called good: 4 of 5. The worst 3 are shown."
    assert choose(findings, 4)[0].text == "Good images called defective: 4 of 5."
    assert verdict(findings, 1) == "good, called defective, score -4 from the threshold"
    assert verdict(findings, 8) == "defective, called good, score +4 from the threshold"


def test_closest_calls_where_nothing_went_wrong():
    findings = found([-4, -2, -1, -3, -6, -9, -7, -8], [1] * 4 + [-1] * 4)
    alarms, missed = choose(findings, 6)
    assert alarms.indices.tolist() == [0, 3, 1]
    assert missed.indices.tolist() == [4, 6, 7]
    assert alarms.text == missed.text == "None among 4. These came closest to it."
    assert [len(choice.indices) for choice in choose(findings, 2)] == [2, 2]
    assert dict(summarise(findings))["false-alarm rate"] == "0 of 4 good images (0.0 %)"


def test_a_score_on_the_threshold_is_good():
    findings = found([-5.0, -5.0], [1, -1])
    assert [choice.text for choice in choose(findings, 1)] == [
        "None among 1. These came closest to it.",
        "Defective images called good: 1 of 1.",
    ]
    assert verdict(findings, 0) == "good, called good, score +0 from the threshold"


def test_without_labels():
    findings = found([-4, -9, -6], None)
    (choice,) = choose(findings, 2)
    assert choice.title == "Most anomalous images"
    assert choice.text == "2 of 3, the most anomalous first."
    assert choice.indices.tolist() == [1, 2]
    assert verdict(findings, 1) == "called defective, score -4 from the threshold"
    figures = dict(summarise(findings))
    assert figures["called defective"] == "2 of 3 images (66.7 %)"
    assert "image AUROC" not in figures


def test_of_good_images_alone():
    counts = PixelCounts().update([None], [np.eye(4)])
    findings = found([-4, -6], [1, 1], counts=counts)
    assert [choice.title for choice in choose(findings, 3)] == ["False alarms"]
    figures = dict(summarise(findings))
    assert figures["image AUROC, average precision, d'"] == "need good and defective images"
    assert figures["detection rate"] == "no defective images"
    assert figures["pixel AUROC"] == "needs good and defective pixels"


@pytest.mark.parametrize("form", [list, np.array, pd.Series])
def test_files_are_named_with_their_folder(form):
    paths = form(["a/b/c.png", "/d.png"])
    assert [name_file(paths, k) for k in (0, 1)] == [": b/c.png", ": /d.png"]
    assert name_file([Path("a/b/c.png")], 0) == ": b/c.png"
    assert name_file(np.zeros((1, 4, 4)), 0) == ""


def test_parameters_are_short():
    estimator = SimpleNamespace(
        get_params=lambda: {"b": "x" * 500, "a": (2, 3), "c": SimpleNamespace()}
    )
    names, values = zip(*list_parameters(estimator), strict=True)
    assert names == ("a", "b", "c")
    assert values[0] == "(2, 3)"
    assert len(values[1]) <= 160
    assert values[2] == "SimpleNamespace"


def test_regions_as_texts():
    canvas = np.zeros((32, 32))
    canvas[3:5, 6], canvas[::4, 20:24:3] = 9.876, 2
    regions = regions_of(canvas, 1.0, Geometry("squash", 32), (32, 32))
    texts = list_regions(regions)
    assert texts[0] == "rows 3 to 4, columns 6 to 6: 2 pixels (0.2 %), peak 9.88"
    assert texts[1] == "rows 0 to 0, columns 20 to 20: 1 pixel (0.098 %), peak 2"
    assert len(texts) == 6
    assert texts[5] == "and 12 more"
    assert list_regions(None) == []
