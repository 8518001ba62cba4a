"""What stands for images to its user and is none: named before scikit-learn sees it, with the remedy."""

import types
import zipfile
from io import BytesIO, TextIOWrapper

import numpy as np
import pandas as pd
import polars
import pytest
import torch
from PIL import Image

from skad._images import as_image_source, is_rows, refuse_single

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)


def encoded(format):  # noqa: A002
    buffer = BytesIO()
    Image.fromarray(PIXELS).save(buffer, format)
    return buffer.getvalue()


PNG = encoded("PNG")


class UploadFile:
    """As in Starlette: to be awaited, around an open file."""

    def __init__(self, content):
        self.file = BytesIO(content)

    async def read(self): ...

    async def seek(self, offset): ...


def in_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        archive.writestr("part.png", PNG)
    return zipfile.Path(tmp_path / "parts.zip", "part.png")


def refused(X, message):
    with pytest.raises(TypeError, match=message) as info:
        # A table goes on to scikit-learn, whose error would not match.
        None if is_rows(X) else as_image_source(X).check()
    assert len(str(info.value)) < 350


ITEMS = {
    "upload": (lambda path: UploadFile(PNG), r"an upload \(UploadFile\).*{}\.file"),
    "archive": (in_archive, r"inside of an archive.*{}\.read_bytes\(\)"),
    "void": (lambda path: np.void(PNG), r"type void.*{}\.tobytes\(\)"),
    "tensor": (
        lambda path: torch.frombuffer(bytearray(PNG), dtype=torch.uint8),
        r"content of an image file.*{}\.numpy\(\)\.tobytes\(\)",
    ),
    **{
        name: (
            lambda path, name=name: np.frombuffer(encoded(name), np.uint8),
            r"content of an image file.*{}\.tobytes\(\)",
        )
        for name in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000")
    },
}


@pytest.mark.parametrize("name", ITEMS)
def test_one_alone_or_among_others(tmp_path, name):
    make, message = ITEMS[name]
    item = make(tmp_path)
    refused(item, "^X is .*" + message.format("X"))
    for others in ([], [PIXELS], [PNG]):
        refused([*others, item], rf"^image {len(others)}\b.*" + message.format("image"))
    with pytest.raises(TypeError, match=r"^X is "):
        refuse_single(item)


def test_a_column_as_old_opencv_encodes():
    column = np.frombuffer(PNG, np.uint8)[:, None]
    refused([column], r"^image 0 .*image\.tobytes\(\)")


def test_rows_of_bytes_stay_rows():
    assert is_rows([np.arange(20, dtype=np.uint8), np.arange(20, dtype=np.uint8)])
    assert is_rows([np.frombuffer(b"BM" + bytes(30), np.uint8)])
    assert is_rows([torch.arange(5), torch.arange(5)])


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_a_list_of_nothing(missing):
    refused([missing, missing], "^image 0 .*must be a path")
    assert is_rows(pd.Series([1, None], dtype=object))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.array([PNG, PNG]), r"drops zeros.*list of bytes.*os\.fsdecode"),
        (np.array([[b"/x/a.png"], [b"/x/b.png"]]), r"os\.fsdecode\(path\)"),
        (pd.DataFrame({"p": ["a.png"]}).to_records(index=False), r"fields 'p'.*list\(X\['p'\]\)"),
        (np.zeros(3, [("image", "u1", (4, 4)), ("y", "i4")]), "fields 'image', 'y'"),
        (
            pd.DataFrame({"p": ["a.png", "b.png"]}).to_dict("records"),
            r"image 0: is a dict with 'p'",
        ),
        ({"a.png": 1, "b.png": -1}, r"X is a dict with 'a\.png', 'b\.png'.*list\(X\.values\(\)\)"),
        (types.MappingProxyType({}), "nothing in it"),
        (polars.LazyFrame({"p": ["a.png"]}), r"LazyFrame.*X\.collect\(\)"),
    ],
)
def test_collections(X, message):
    refused(X, message)


def test_messages_stay_short():
    refused({"k" * 5000: 1}, "X is a dict")
    refused(np.zeros(2, [("f" * 5000, "i4")]), "structured array")
    refused([{"k" * 5000: PIXELS}], "image 0: is a dict")
    refused([type("T" * 5000, (), {})(), PIXELS], "^image 0 .*TTT")
    many = np.zeros((9, 7), [(f"field{i}", "u1") for i in range(300)])
    with pytest.raises(ValueError, match="must be numbers or bool") as info:
        as_image_source([many]).check()
    assert len(str(info.value)) < 350


@pytest.mark.parametrize("path", [b"/x/a.png", b"part.png", b"teile/gr\xc3\xbcn.jpg"])
def test_paths_as_bytes(path):
    with pytest.raises(ValueError, match=r"not an image that Pillow.*os\.fsdecode\(path\)"):
        as_image_source([path]).check()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_one_colour_tensor_is_not_many_grey_images(channels, dtype):
    X = torch.zeros(channels, 9, 7, dtype=dtype)
    with pytest.raises(ValueError, match=r"\[X\.permute\(1, 2, 0\)\].*list\(X\)"):
        as_image_source(X)
    assert as_image_source([X.permute(1, 2, 0)]).shape(0) == (9, 7)
    assert len(as_image_source(list(X))) == channels
    assert len(as_image_source(X.numpy())) == channels
    assert len(as_image_source(torch.zeros(5, 9, 7))) == 5


@pytest.mark.parametrize(
    "shape",
    [(True, 5), (5, True), (np.True_, 5), "15", 5, (None, 5), (1, 5, True), ("x" * 9000, 5)],
)
def test_an_image_shape_of_other_types(shape):
    with pytest.raises(ValueError, match=r"^image_shape must be") as info:
        as_image_source(np.zeros((2, 5)), image_shape=shape)
    assert len(str(info.value)) < 350


@pytest.mark.parametrize("shape", [[5, 1], np.array([1, 5]), (np.int64(1), 5)])
def test_image_shapes_of_any_container(shape):
    assert as_image_source(np.zeros((2, 5)), image_shape=shape).shape(0) == tuple(shape)


def test_files_that_do_as_uploads_are_images():
    """Flask's uploads, and Django's, are files themselves."""
    file = BytesIO(PNG)
    file.file = file
    np.testing.assert_array_equal(as_image_source([file]).load(0), PIXELS)
    with pytest.raises(ValueError, match="opened as text"):
        as_image_source([TextIOWrapper(BytesIO(PNG))]).check()
