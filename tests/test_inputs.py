"""What fit and all methods after it make of tables, columns, uploads and lazy arrays."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import make_detector, make_recontrast
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline

import skad
from skad import ScoreFusionDetector
from skad.exceptions import ImageFileWarning, TabularDataWarning
from skad.inspection import report

SHAPE = (40, 48, 3)
METHODS = [
    "predict",
    "score_samples",
    "decision_function",
    "predict_heatmap",
    "anomaly_p_value",
    "partial_fit",
]


def make_fusion(**params):
    members = [("a", make_detector(**params)), ("b", make_detector(layers=(2,), **params))]
    return ScoreFusionDetector(members, target_false_alarm_rate=0.2)


def as_png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def fitted(good):
    return make_detector().fit(good)


@pytest.fixture(scope="module")
def fitted_fusion(good):
    return make_fusion().fit(good)


@pytest.fixture(params=["fitted", "fitted_fusion"])
def each(request):
    """A fitted detector and a fitted ensemble, by turns; not to be changed."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def scores(fitted, defective):
    return fitted.score_samples(defective)


@pytest.fixture(scope="module")
def paths(defective, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(defective):
        Image.fromarray(image).save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(len(defective))]


# --------------------------------------------------------------------------- tables and images


@pytest.mark.parametrize("method", METHODS)
def test_one_grey_image_is_no_table(good, each, method):
    if not hasattr(each, method):
        pytest.skip("not a method of ensembles")
    grey = good[0, :, :, 0]
    for X in (grey, grey / 255, pd.DataFrame(grey), grey.tolist(), good.reshape(len(good), -1)):
        with pytest.raises(ValueError, match=r"fitted on images.*\[X\].*image_shape=\(H, W\)"):
            getattr(each, method)(X)
    if method not in ("predict_heatmap", "partial_fit"):
        assert np.shape(getattr(each, method)([grey])) == (1,)


def test_one_grey_image_is_no_table_to_score(good, fitted):
    with pytest.raises(ValueError, match="fitted on images"):
        fitted.score(good[0, :, :, 0], np.r_[1, -np.ones(39, int)])


def test_what_is_no_table_either_is_said_otherwise(fitted):
    for X in ({"a": 1}, 3.0, [1, 2, 3], None):
        with pytest.raises((TypeError, ValueError)) as info:
            fitted.predict(X)
        assert "table" not in str(info.value)


def test_strips_are_not_images(good):
    rows = good[..., 0].reshape(len(good), -1)
    with pytest.warns(TabularDataWarning):
        det = make_detector().fit(rows)
    det.predict(rows[:2])
    for X in (good, list(good)):
        with pytest.raises(ValueError, match=r"X holds images, but .* table.*image_shape="):
            det.predict(X)


def test_the_type_of_a_table_changes_no_score():
    table = np.random.default_rng(0).integers(0, 200, (8, 40)).astype(np.uint8)
    with pytest.warns(TabularDataWarning):
        det = make_detector().fit(table)
    expected = det.score_samples(table.astype(float))
    for same in (table, table.astype(np.uint16), table.astype(object), table.tolist()):
        np.testing.assert_array_equal(det.score_samples(same), expected)


@pytest.mark.parametrize("rows_first", [True, False])
def test_rows_with_a_shape_are_the_same_images(good, defective, scores, rows_first):
    forms = [good.reshape(len(good), -1), good]
    det = make_detector(image_shape=SHAPE).fit(forms[0 if rows_first else 1])
    np.testing.assert_array_equal(det.score_samples(defective), scores)
    flat = defective.reshape(len(defective), -1)
    np.testing.assert_array_equal(det.score_samples(flat), scores)
    with pytest.raises(ValueError, match="5759"):
        det.predict(flat[:, :-1])
    if rows_first:
        assert hasattr(det, "n_features_in_")
        with pytest.raises(ValueError, match=r"X has 5759 features.*expecting 5760"):
            det.partial_fit(flat[:, :-1])


@pytest.mark.parametrize("make", [make_detector, make_fusion, lambda: make_recontrast(max_iter=1)])
def test_rows_without_a_shape_warn_once(good, make):
    rows = good[..., 0].reshape(len(good), -1)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        make().fit(rows)
    (warning,) = [w for w in seen if issubclass(w.category, TabularDataWarning)]
    assert "one pixel high" in str(warning.message)
    assert warning.filename == __file__


def test_rows_with_a_shape_do_not_warn(good):
    with warnings.catch_warnings():
        warnings.simplefilter("error", TabularDataWarning)
        make_detector(image_shape=SHAPE).fit(good.reshape(len(good), -1))
        make_detector().fit(good)


def test_errors_about_rows_are_refused_before_the_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", TabularDataWarning)
        with pytest.raises(ValueError, match="NaN"):
            make_detector().fit(np.full((4, 5), np.nan))


def test_the_warnings_are_public():
    assert skad.TabularDataWarning is TabularDataWarning
    assert skad.ImageFileWarning is ImageFileWarning
    assert issubclass(TabularDataWarning, UserWarning)


@pytest.mark.parametrize(
    "X",
    ["parts", b"1234", io.BytesIO(b"1234"), iter([1, 2, 3, 4])],
    ids=["text", "bytes", "file", "iterator"],
)
def test_letters_are_not_counted_as_images(fitted, X, tmp_path):
    for call in (
        fitted.predict,
        lambda X: fitted.score(X, [1, -1]),
        lambda X: report(fitted, X, path=tmp_path / "r.html"),
    ):
        with pytest.raises(TypeError, match=r"wrap it in (a list|list\(X\))"):
            call(X)


# --------------------------------------------------------------------------- columns and uploads


def test_what_a_column_transformer_hands_on(good, fitted, paths, scores):
    frame = pd.DataFrame({"n": range(len(paths)), "path": paths})
    for output in ("default", "pandas"):
        choose = ColumnTransformer([("image", "passthrough", ["path"])]).set_output(
            transform=output
        )
        pipeline = make_pipeline(choose.fit(frame), fitted)
        np.testing.assert_array_equal(pipeline.score_samples(frame), scores)


@pytest.mark.parametrize("form", ["bytes", "files", "column of bytes", "frame", "column of arrays"])
def test_every_form_scores_the_same(fitted, defective, paths, scores, form):
    encoded = [as_png(image) for image in defective]
    X = {
        "bytes": encoded,
        "files": [io.BytesIO(content) for content in encoded],
        "column of bytes": pd.DataFrame({"upload": encoded}),
        "frame": pd.DataFrame({"path": paths}, index=range(9, 5, -1)),
        "column of arrays": pd.DataFrame({"image": list(defective)}),
    }[form]
    np.testing.assert_array_equal(fitted.score_samples(X), scores)
    assert fitted.predict_heatmap(X).shape == defective.shape[:3]


@pytest.mark.parametrize(
    "X",
    [
        [b"x" * 200_000] * 3,
        ["x" * 200_000] * 3,
        np.array([b"x" * 200_000] * 3),
        np.array([["x" * 200_000, "1"]], dtype=object),
        np.array([[1.0, {"x" * 200_000: 1}]], dtype=object),
        "x" * 200_000,
        b"x" * 200_000,
        {"x" * 200_000: 1},
        ["/" + "y" * 4000 + ".png"],
    ],
    ids=range(9),
)
def test_no_message_is_long(fitted, X):
    for call in (make_detector().fit, fitted.predict):
        with pytest.raises((TypeError, ValueError)) as info:
            call(X)
        assert len(str(info.value)) < 1100


# --------------------------------------------------------------------------- lazy arrays


class Lazy:
    """An array that is computed whenever it is asked for, and counts that."""

    def __init__(self, array, known):
        self._array, self.reads = array, 0
        if known:
            self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype

    def __array__(self, dtype=None, copy=None):
        self.reads += 1
        return self._array


class DataSet:
    """A data set in the manner of torch: a length and elements."""

    def __init__(self, elements):
        self._elements, self.reads = elements, [0] * len(elements)

    def __len__(self):
        return len(self._elements)

    def __getitem__(self, i):
        self.reads[i] += 1
        return self._elements[i]


@pytest.mark.parametrize("known", [True, False], ids=["shape", "no shape"])
@pytest.mark.parametrize("method", METHODS[:-1])
def test_lazy_arrays_are_read_once(fitted, defective, method, known):
    X = [Lazy(image, known) for image in defective]
    np.testing.assert_array_equal(getattr(fitted, method)(X), getattr(fitted, method)(defective))
    assert [image.reads for image in X] == [1] * len(X)


@pytest.mark.parametrize("known", [True, False], ids=["shape", "no shape"])
@pytest.mark.parametrize("make", [make_detector, make_recontrast])
def test_fit_reads_lazy_arrays_once_a_pass(good, known, make):
    X = [Lazy(image, known) for image in good]
    params = {"max_iter": 1} if make is make_recontrast else {}
    det = make(**params).fit(X)
    assert {image.reads for image in X} == {1}
    same = make(**params).fit(good)
    np.testing.assert_array_equal(det.score_samples(good[:2]), same.score_samples(good[:2]))


def test_numbers_of_lazy_arrays_are_checked_when_they_are_read(fitted, defective):
    X = [Lazy(defective[0], True), Lazy(defective[1] * 1.0, True)]
    with pytest.raises(ValueError, match=r"^image 1 .*floats must lie in 0\.\.1"):
        fitted.predict(X)
    with pytest.raises(ValueError, match=r"^image 1 .*channels-first"):
        fitted.predict([Lazy(defective[0], True), Lazy(defective[1].transpose(2, 0, 1), True)])
    assert X[1].reads == 1


@pytest.mark.parametrize("elements", ["arrays", "paths", "bytes", "Pillow"])
def test_data_sets_are_read_once_an_element(fitted, defective, paths, scores, elements):
    X = DataSet(
        {
            "arrays": list(defective),
            "paths": paths,
            "bytes": [as_png(image) for image in defective],
            "Pillow": [Image.fromarray(image) for image in defective],
        }[elements]
    )
    np.testing.assert_array_equal(fitted.score_samples(X), scores)
    assert X.reads == [1] * len(X)
    y = [1, 1, -1, -1]
    assert 0 <= fitted.score(X, y) <= 1
    assert X.reads == [2] * len(X)


def test_data_sets_of_pairs_say_what_to_do(fitted, defective):
    with pytest.raises(TypeError, match=r"image 0 \(DataSet\[0\]\): is a tuple of 2.*element\[0\]"):
        fitted.predict(DataSet([(image, 1) for image in defective]))


# --------------------------------------------------------------------------- files with more in them


@pytest.mark.parametrize("method", ["fit", "score_samples", "predict_heatmap"])
def test_pages_are_told_once_per_call(good, each, method, tmp_path):
    pages = [Image.fromarray(image) for image in good]
    for i in range(3):
        pages[i].save(tmp_path / f"{i}.tif", save_all=True, append_images=pages[i + 1 : i + 2])
    X = [tmp_path / f"{i}.tif" for i in range(3)]
    call = getattr(clone(each) if method == "fit" else each, method)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call(X)
    (warning,) = [w for w in seen if issubclass(w.category, ImageFileWarning)]
    assert "0.tif') with 2, and 2 other files" in str(warning.message)
    assert warning.filename == __file__
