"""Labels are read in one place, by value and never by dtype."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars
import pytest
import torch
from conftest import make_detector, make_recontrast

from skad import ScoreFusionDetector
from skad._common.labels import good_images, read_both_labels, read_labels
from skad.inspection import CoresetDisplay, ScoreHistogramDisplay, report
from skad.metrics import average_precision, image_auroc, threshold_report
from skad.model_selection import OneClassKFold, OneClassShuffleSplit, image_auroc_scorer

Y = [1, -1, 1, 1, -1]

# The same labels as users hold them.
CONTAINERS = {
    "list": lambda y: list(y),
    "tuple": tuple,
    "int8": lambda y: np.array(y, np.int8),
    "float16": lambda y: np.array(y, np.float16),
    "object": lambda y: np.array(y, object),
    "object of floats": lambda y: np.array([float(v) for v in y], object),
    "NumPy scalars": lambda y: [np.int16(v) for v in y],
    "column vector": lambda y: np.array(y)[:, None],
    "list of lists": lambda y: [[v] for v in y],
    "column of objects": lambda y: np.array(y, object)[:, None],
    "Series, shuffled index": lambda y: pd.Series(y, index=range(len(y))[::-1]),
    "nullable Series": lambda y: pd.Series(y, dtype="Int64"),
    "nullable float Series": lambda y: pd.Series(y, dtype="Float32"),
    "categorical": lambda y: pd.Series(y, dtype="category"),
    "column of a mixed table": lambda y: pd.DataFrame({"a": "x", "y": y}).to_numpy()[:, 1],
    "table of one column": lambda y: pd.DataFrame({"y": y}),
    "polars Series": polars.Series,
    "polars floats": lambda y: polars.Series([float(v) for v in y]),
    "polars table of one column": lambda y: polars.DataFrame({"y": y}),
    "tensor": torch.tensor,
    "bfloat16": lambda y: torch.tensor(y, dtype=torch.bfloat16),
    "tensor with a gradient": lambda y: torch.tensor([float(v) for v in y], requires_grad=True),
    "decimals": lambda y: [Decimal(v) for v in y],
    "fractions": lambda y: [Fraction(v) for v in y],
    "masked array, nothing masked": lambda y: np.ma.masked_array(y, [False] * len(y)),
}

# What holds no labels, and what the message says of it.
UNREADABLE = {
    "names": (["good", "scratch", "good", "good", "dent"], r"y\[0\] is 'good' \(str\)"),
    "texts of numbers": (np.array(["1", "-1", "1", "1", "-1"]), r"y\[0\] is '1' \(str"),
    "categorical names": (pd.Series(list("abaab"), dtype="category"), r"y\[0\] is 'a'"),
    "None": ([1, None, 1, 1, -1], r"y\[1\] is 'None'"),
    "NaN": ([1.0, -1.0, np.nan, 1.0, -1.0], r"y\[2\] is nan"),
    "missing in a nullable Series": (pd.Series([1, -1, None, 1, 1], dtype="Int64"), r"y\[2\]"),
    "missing in polars": (polars.Series([1, -1, None, 1, 1]), r"y\[2\]"),
    "texts in polars": (polars.Series(list("abaab")), r"y\[0\] is 'a'"),
    "masked": (np.ma.masked_array(Y, [0, 0, 0, 1, 0]), r"y\[3\]"),
    "infinite": ([1, -1, 1, np.inf, -1], r"y\[3\] is inf"),
    "booleans": (np.array(Y) == 1, r"y\[0\] is 'True'"),
    "nullable booleans": (pd.Series([True, False] * 2 + [True], dtype="boolean"), r"y\[0\]"),
    "booleans among numbers": ([1, -1, True, 1, -1], r"y\[2\] is 'True'"),
    "texts among numbers": ([1, -1, 1, "1", -1], r"y\[3\] is '1'"),
    "complex": (np.array(Y, complex), r"y\[0\]"),
    "dates": (np.array(["2026-01-01"] * 5, "M8[D]"), r"y\[0\]"),
    "masked in a list": ([1, -1, np.ma.masked, 1, 1], r"y\[2\] is 'None'"),
    "beyond floats": ([1, -1, 1, 10**400, 1], r"y\[3\]"),
    "signalling": ([1, Decimal("sNaN"), 1, 1, -1], r"y\[1\]"),
    "durations": (np.array(Y, "m8[s]"), r"y\[0\]"),
    "complex64": (np.array(Y, np.complex64), r"y\[0\]"),
    "boolean tensor": (torch.tensor(Y) == 1, r"y\[0\] is 'True'"),
    "too few": ([1, -1], "2 labels for 5 images"),
    "too many": ([1] * 6, "6 labels for 5 images"),
    "none": ([], "0 labels for 5 images"),
    "a number": (1, r"shape is \(\)"),
    "a text": ("good!", r"shape is \(\)"),
    "several columns": (np.ones((5, 2)), r"shape is \(5, 2\)"),
    "lists of several": ([[1, 1]] * 5, r"y\[0\]"),
}


@pytest.mark.parametrize("hold", CONTAINERS.values(), ids=CONTAINERS)
def test_the_same_labels_in_every_container(hold):
    y = hold(Y)
    np.testing.assert_array_equal(read_labels(y, 5), Y)
    np.testing.assert_array_equal(read_both_labels(y, 5), Y)
    np.testing.assert_array_equal(good_images(y, 5), [0, 2, 3])


@pytest.mark.parametrize(("y", "message"), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("read", [good_images, read_labels, read_both_labels])
def test_what_holds_no_labels_is_named(read, y, message):
    with pytest.raises(ValueError, match=message) as error:
        read(y, 5)
    assert len(str(error.value)) < 300


class TestTraining:
    @pytest.mark.parametrize("y", [None, np.ones(5), [1] * 5])
    def test_good_images_alone(self, y):
        np.testing.assert_array_equal(good_images(y, 5), range(5))

    @pytest.mark.parametrize(
        ("y", "named"),
        [
            ([0, 1, 1, 0, 1], r"y holds \[0, 1\] and"),
            ([1, 2, 2, 1, 1], r"y holds \[1, 2\] and"),
            ([0, 255, 0, 0, 0.5], r"y holds \[0, 0.5, 255\] and"),
            ([1, -1, 0, 1, 1], r"y holds \[-1, 0, 1\] and"),
            ([1, -1, np.float32(0.99999994), 1, 1], r"y holds \[-1, 0.9999999403953552, 1\] and"),
            (range(10, 15), r"y holds \[10, 11, 12, 13, 14\] and"),
        ],
    )
    def test_other_numbers_train_on_all_and_say_so(self, y, named):
        with pytest.warns(UserWarning, match=named) as seen:
            np.testing.assert_array_equal(good_images(list(y), 5), range(5))
        assert "y = np.where(is_defective, -1, 1)" in str(seen[0].message)

    def test_five_values_are_named_at_most(self):
        with pytest.warns(UserWarning, match=r"y holds \[0, 1, 2, 3, 4\] and 95 other values"):
            good_images(np.arange(100), 100)

    @pytest.mark.parametrize("y", [[-1] * 5, [-1, 0, 0, -1, 0]])
    def test_defects_and_no_good_image(self, y):
        with pytest.raises(ValueError, match=r"no image is labelled \+1"):
            good_images(y, 5)


class TestEvaluation:
    @pytest.mark.parametrize("y", [[0, 1, 0, 1, 1], [1, -1, 0, 1, 1], [2, 2, 2, 2, 2]])
    def test_other_numbers_are_an_error(self, y):
        with pytest.raises(ValueError, match=r"must be \+1 \(good\) and -1 .*is_defective"):
            read_labels(y, 5)

    def test_no_labels(self):
        with pytest.raises(ValueError, match="y is needed"):
            read_labels(None, 5)

    @pytest.mark.parametrize("value", [1, -1])
    def test_one_kind_is_no_reason_to_swap(self, value):
        np.testing.assert_array_equal(read_labels([value] * 5, 5), [value] * 5)
        with pytest.raises(ValueError, match="StratifiedKFold") as error:
            read_both_labels([value] * 5, 5)
        assert "np.where" not in str(error.value)


@pytest.fixture(scope="module")
def fitted(good):
    return make_detector().fit(good)


@pytest.fixture(scope="module")
def mixed(good, defective):
    return np.concatenate([defective, good]), [-1] * len(defective) + [1] * len(good)


def _readers(det, X, folder):
    """Everything that takes labels, by name."""
    scores = det.score_samples(X)
    return {
        "score": lambda y: det.score(X, y),
        "image_auroc": lambda y: image_auroc(y, scores),
        "average_precision": lambda y: average_precision(y, scores),
        "threshold_report": lambda y: threshold_report(y, scores, det.offset_),
        "scorer": lambda y: image_auroc_scorer(det, X, y),
        "OneClassKFold": lambda y: [
            a.tolist() + b.tolist() for a, b in OneClassKFold(2).split(X, y)
        ],
        "OneClassShuffleSplit": lambda y: [
            a.tolist() + b.tolist() for a, b in OneClassShuffleSplit(2, random_state=0).split(X, y)
        ],
        "histogram": lambda y: ScoreHistogramDisplay.from_estimator(det, X, y).d_prime,
        "coreset": lambda y: CoresetDisplay.from_estimator(det, X, y).y.tolist(),
        "report": lambda y: len(
            report(det, X, y, path=folder / "r.html", n_examples=1).read_text().split("defective")
        ),
    }


def test_everything_that_evaluates_reads_the_same(fitted, mixed, tmp_path):
    X, y = mixed
    for name, reader in _readers(fitted, X, tmp_path).items():
        expected = reader(np.array(y))
        for kind in ("object", "column vector", "nullable Series", "categorical"):
            assert reader(CONTAINERS[kind](y)) == expected, (name, kind)


@pytest.mark.parametrize("kind", ["names", "None", "booleans", "too few"])
def test_everything_that_evaluates_refuses_the_same(fitted, mixed, tmp_path, kind):
    X, _ = mixed
    y, _ = UNREADABLE[kind]
    y = y if kind == "too few" else np.resize(np.array(y, object), len(X))
    for reader in _readers(fitted, X, tmp_path).values():
        with pytest.raises(ValueError, match="label"):
            reader(y)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        *((make_detector, kind) for kind in ("object", "column vector", "nullable Series")),
        (lambda: make_recontrast(max_iter=2), "nullable Series"),
        (
            lambda: ScoreFusionDetector([("a", make_detector())], target_false_alarm_rate=0.2),
            "categorical",
        ),
    ],
)
def test_no_container_makes_a_detector_learn_defects(make, good, mixed, kind):
    X, y = mixed
    det = make().fit(X, CONTAINERS[kind](y))
    assert det.n_images_ == len(good)
    if hasattr(det, "partial_fit"):
        assert det.partial_fit(X, CONTAINERS[kind](y)).n_images_ == 2 * len(good)
