"""What is a table, what is a collection of images, and what is neither."""

import array
from collections import UserList, deque
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import polars
import pytest
import scipy.sparse
import torch
from PIL import Image

from skad._images import as_image_source, column_values, is_rows

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)


def object_array(items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def encoded(pixels=PIXELS, format="PNG"):  # noqa: A002
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((4, 5)),
        np.zeros((4, 5), dtype=object),
        np.zeros((0, 3)),
        np.zeros(5),
        np.zeros(5, dtype=object),
        np.zeros((2, 3), dtype=complex),
        pd.DataFrame({"a": [1, 2]}),
        pd.Series([1.0, 2.0]),
        scipy.sparse.csr_matrix(np.eye(3)),
        [[1, 2], [3, 4]],
        [1, 2, 3],
        [np.zeros(3), np.zeros(3)],
        torch.zeros(4, 5),
        torch.zeros(4),
        3.0,
        None,
    ],
    ids=lambda X: type(X).__name__,
)
def test_tables_and_strangers_are_rows(X):
    assert is_rows(X)


@pytest.mark.parametrize(
    "X",
    [
        ["a.png", "b.png"],
        ("a.png",),
        [Path("a.png")],
        np.array(["a.png", "b.png"]),
        object_array(["a.png", Path("b.png")]),
        pd.Series(["a.png", "b.png"], index=[7, 9]),
        pd.Series(["a.png", "b.png"], dtype="string"),
        [Image.new("L", (4, 4))],
        [np.zeros((4, 4))],
        [torch.zeros(4, 4, 3)],
        object_array([np.zeros((4, 4)), np.zeros((5, 4, 3))]),
        [None, "a.png"],
        np.zeros((2, 4, 4)),
        np.zeros((2, 4, 4, 3)),
        np.zeros((2, 4, 4, 3, 1)),
        torch.zeros(2, 4, 4),
        torch.zeros(2, 4, 4, 3),
        [],
        np.array([]),
    ],
    ids=lambda X: type(X).__name__,
)
def test_images_are_not_rows(X):
    assert not is_rows(X)


@pytest.mark.parametrize("X", ["a.png", Path("a.png"), Image.new("L", (4, 4))])
def test_a_single_image_wants_a_list(X):
    with pytest.raises(TypeError, match="wrap it in a list"):
        is_rows(X)


def test_an_iterator_wants_a_list(tmp_path):
    with pytest.raises(TypeError, match="wrap it in list"):
        is_rows(tmp_path.glob("*.png"))


# --------------------------------------------------------------------------- columns


@pytest.fixture
def path(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "part.png")
    return str(tmp_path / "part.png")


def columns(cell):
    """One column of three equal cells, in the forms that tables hand on."""
    cells = object_array([cell] * 3)
    frame = pd.DataFrame({"image": cells}, index=[4, 4, 9])
    return {
        "array": cells[:, None],
        "frame": frame,
        "series": frame["image"],
        "index": pd.Index(cells) if isinstance(cell, str) else frame["image"],
        "lists": [[cell]] * 3,
        "tuples": [(cell,)] * 3,
        "categories": frame.astype("category") if isinstance(cell, str) else frame,
        "text": frame.astype("string") if isinstance(cell, str) else frame,
        "array of text": np.array([[cell]] * 3) if isinstance(cell, str) else cells,
    }


@pytest.mark.parametrize("kind", ["path", "bytes", "Pillow", "array"])
def test_a_column_of_images_is_images(path, kind):
    cell = {
        "path": path,
        "bytes": encoded(),
        "Pillow": Image.fromarray(PIXELS),
        "array": PIXELS,
    }[kind]
    for form, X in columns(cell).items():
        assert not is_rows(X), form
        source = as_image_source(X)
        assert len(source) == 3
        np.testing.assert_array_equal(source.load(2), PIXELS, err_msg=form)


@pytest.mark.parametrize("kind", ["path", "bytes"])
def test_a_column_of_polars_is_images(path, kind):
    cell = path if kind == "path" else encoded()
    for X in (polars.Series([cell] * 3), polars.DataFrame({"image": [cell] * 3})):
        assert not is_rows(X)
        np.testing.assert_array_equal(as_image_source(X).load(2), PIXELS)


class FrameOfAnotherKind:
    """What polars has in common with pandas, and what not."""

    def __init__(self, cells):
        self.columns, self.shape, self._cells = ["image"], (len(cells), 1), cells

    def __len__(self):
        return len(self._cells)

    def __getitem__(self, name):
        raise AssertionError("columns are not numbered")

    def to_numpy(self):
        return object_array(self._cells)[:, None]

    def __array__(self, dtype=None, copy=None):
        return self.to_numpy()


class Arrow:
    """What pyarrow's tables have."""

    column_names = ("image",)

    def __init__(self, cells):
        self.shape, self._cells = (len(cells), 1), cells

    def __len__(self):
        return len(self._cells)

    def __getitem__(self, name):
        raise AssertionError("columns are not numbered")

    def __array__(self, dtype=None, copy=None):
        return object_array(self._cells)[:, None]


@pytest.mark.parametrize("kind", [FrameOfAnotherKind, Arrow])
def test_a_column_of_other_tables_is_images(path, kind):
    X = kind([path] * 3)
    assert not is_rows(X)
    np.testing.assert_array_equal(as_image_source(X).load(1), PIXELS)


@pytest.mark.parametrize(
    "X",
    [
        np.arange(3)[:, None],
        np.array([[1], [2]], dtype=object),
        pd.DataFrame({"a": [1.0, np.nan]}),
        pd.DataFrame({"a": [True, None]}),
        [[1], [2]],
        [(1.5,), (2.5,)],
    ],
    ids=str,
)
def test_a_column_of_numbers_is_a_table(X):
    assert is_rows(X)


@pytest.mark.parametrize(
    ("X", "remedy"),
    [
        (pd.DataFrame({"label": [1], "path": ["a.png"]}), r"X\['path'\]"),
        (pd.DataFrame({"image": [encoded()], "path": ["a.png"]}), r"X\['image'\]"),
        (pd.DataFrame({"image": [Image.new("L", (4, 4))], "n": [1]}), r"X\['image'\]"),
        (np.array([["1", "a.png"]]), r"X\[:, 0\]"),
        (object_array([1, Path("a.png")])[None], r"X\[:, 1\]"),
    ],
    ids=lambda X: type(X).__name__,
)
def test_one_column_of_several_is_wanted(X, remedy):
    with pytest.raises(ValueError, match=rf"table of 2 columns .* such as {remedy}"):
        is_rows(X)


def test_values_of_a_column_are_told_by_place():
    series = pd.Series(["a", None, "c"], index=[2, 1, 0])
    for column in (series, series.to_frame(), series.to_numpy()[:, None]):
        assert [value for value in column_values(column) if isinstance(value, str)] == ["a", "c"]
    for other in ([1, 2], np.zeros((2, 3)), torch.zeros(3), pd.DataFrame({"a": [1], "b": [2]})):
        assert column_values(other) is None


# --------------------------------------------------------------------------- data sets


class DataSet:
    """Has a length and elements, and counts how often they are read."""

    def __init__(self, elements):
        self.elements, self.reads = elements, []

    def __len__(self):
        return len(self.elements)

    def __getitem__(self, i):
        self.reads.append(i)
        return self.elements[i]


def test_an_element_is_read_when_its_turn_comes(path):
    kinds = [PIXELS, Image.fromarray(PIXELS), path, encoded(), torch.from_numpy(PIXELS)]
    X = DataSet(kinds)
    assert not is_rows(X)
    source = as_image_source(X)
    source.check(min_side=7)
    assert "DataSet[3]" in source.describe(3)
    assert X.reads == []
    for i in range(len(kinds)):
        np.testing.assert_array_equal(source.load(i), PIXELS)
        assert source.shape(i) == (9, 7)
    assert X.reads == list(range(len(kinds)))


@pytest.mark.parametrize("kind", [UserList, deque])
def test_other_sequences_are_data_sets(path, kind):
    np.testing.assert_array_equal(as_image_source(kind([path])).load(0), PIXELS)


@pytest.mark.parametrize(
    ("element", "remedy"),
    [
        ((PIXELS, 1), r"tuple of 2.*\[element\[0\] for element in X\]"),
        ([PIXELS], r"list of 1.*\[element\[0\]"),
        ({"image": PIXELS, "label": 1}, r"dict with 'image', 'label'.*X\['image'\]"),
        (1.5, "must be a path"),
        (None, "must be a path"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_an_element_must_be_an_image(element, remedy):
    with pytest.raises(TypeError, match=rf"^image 1 \(DataSet\[1\]\).*{remedy}"):
        as_image_source(DataSet([PIXELS, element])).load(1)


class DataSetOfColumns(DataSet):
    """As Hugging Face has them: with a shape, and by name with columns."""

    column_names = ("image", "label")
    shape = (2, 2)

    def __getitem__(self, i):
        found = super().__getitem__(i) if isinstance(i, int) else None
        return DataSet([row["image"] for row in self.elements]) if found is None else found


def test_a_data_set_of_columns_wants_one():
    X = DataSetOfColumns([{"image": PIXELS, "label": 1}] * 2)
    assert not is_rows(X)
    with pytest.raises(TypeError, match=r"^image 0 .*dict with 'image', 'label'.*X\['image'\]"):
        as_image_source(X).load(0)
    np.testing.assert_array_equal(as_image_source(X["image"]).load(1), PIXELS)


def test_what_reading_an_element_raises_is_named():
    class Broken(DataSet):
        def __getitem__(self, i):
            raise RuntimeError("the disk is gone " + "x" * 5000)

    with pytest.raises(
        ValueError, match=r"image 0 \(Broken\[0\]\).*RuntimeError: the disk"
    ) as info:
        as_image_source(Broken([1])).load(0)
    assert len(str(info.value)) < 400
    assert isinstance(info.value.__cause__, RuntimeError)


def test_small_elements_are_named_when_they_are_read():
    source = as_image_source(DataSet([PIXELS, PIXELS[:3]]))
    source.check(min_side=5)
    chosen = source.subset([1])
    with pytest.raises(ValueError, match=r"^image 1 .*3 x 7 pixels.*at least 5"):
        chosen.load(0)


def test_one_thread_reads_elements_at_a_time():
    import threading
    from concurrent.futures import ThreadPoolExecutor

    class Seeking(DataSet):
        """A position in a file that two readers would move for each other."""

        position = None

        def __getitem__(self, i):
            self.position = i
            threading.Event().wait(0.001)
            return self.elements[self.position]

    source = as_image_source(Seeking([np.full((4, 4), value, np.uint8) for value in range(32)]))
    with ThreadPoolExecutor(8) as pool:
        found = [image[0, 0, 0] for image in pool.map(source.load, range(32))]
    assert found == list(range(32))


class Stored:
    """An array that lies elsewhere, as h5py and zarr have them."""

    def __init__(self, array):
        self._array, self.reads = array, []
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype

    def __len__(self):
        return len(self._array)

    def __getitem__(self, i):
        self.reads.append(i)
        return self._array[i]

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("all of it was read")


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_arrays_elsewhere_are_read_image_by_image(dtype):
    batch = np.stack([PIXELS, PIXELS[::-1]])
    X = Stored(batch if dtype == np.uint8 else batch / 255)
    assert not is_rows(X)
    source = as_image_source(X)
    source.check(min_side=7)
    assert source.shape(1) == (9, 7)
    assert source.describe(0) == f"image 0 (array of shape (9, 7, 3), {np.dtype(dtype)})"
    assert X.reads == []
    np.testing.assert_array_equal(source.load(1), PIXELS[::-1])
    assert X.reads == [1]
    with pytest.raises(ValueError, match=r"^image 0 .*at least 8"):
        source.check(min_side=8)


def test_dask_is_computed_image_by_image():
    dask = pytest.importorskip("dask.array")
    X = dask.from_array(np.stack([PIXELS, PIXELS[::-1]]), chunks=(1, 9, 7, 3))
    np.testing.assert_array_equal(as_image_source(X).load(1), PIXELS[::-1])


# --------------------------------------------------------------------------- what helps


def test_a_folder_wants_its_files(tmp_path):
    for X in (str(tmp_path), tmp_path):
        with pytest.raises(TypeError, match=r"is a folder \('.*'\): .*list_images\('.*'\)"):
            is_rows(X)


def test_a_pattern_wants_to_be_searched():
    with pytest.raises(TypeError, match=r"is a pattern .*sorted\(glob\.glob\('parts/\*\.png'\)\)"):
        is_rows("parts/*.png")


@pytest.mark.parametrize("X", [b"x", bytearray(b"x"), memoryview(b"x"), BytesIO(b"x")])
def test_a_single_encoded_image_wants_a_list(X):
    with pytest.raises(TypeError, match="wrap it in a list"):
        is_rows(X)


@pytest.mark.parametrize(
    "X",
    [{"a.png"}, {"a": "a.png"}.values(), torch.utils.data.DataLoader([1, 2])],
    ids=["set", "values", "loader"],
)
def test_what_can_only_be_iterated_wants_a_list(X):
    with pytest.raises(TypeError, match=r"list\(X\)"):
        is_rows(X)


@pytest.mark.parametrize(
    "X", [scipy.sparse.coo_array(np.eye(3)), scipy.sparse.csr_array(np.eye(3)), np.float64(3), int]
)
def test_strangers_are_left_to_scikit_learn(X):
    assert is_rows(X)


def test_numbers_of_other_sequences_are_no_images():
    with pytest.raises(TypeError, match=r"array\[0\].*must be a path"):
        as_image_source(array.array("d", [1.0])).load(0)


def test_long_names_are_cut():
    for X in ("x" * 100_000, b"x" * 100_000):
        with pytest.raises(TypeError) as info:
            is_rows(X)
        assert len(str(info.value)) < 400
