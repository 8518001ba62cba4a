"""Further pages of a file are not dropped without a word."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from skad._images import as_image_source
from skad.exceptions import ImageFileWarning

PAGES = [Image.new("RGB", (24, 20), (value, 0, 0)) for value in (10, 90, 200)]


def saved(format, pages=PAGES, **options):  # noqa: A002
    buffer = io.BytesIO()
    if len(pages) > 1:
        options.update(save_all=True, append_images=pages[1:])
    pages[0].save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["TIFF", "GIF", "PNG", "WEBP"])
def test_several_pages_are_said_once(tmp_path, format):  # noqa: A002
    content = saved(format, lossless=True) if format == "WEBP" else saved(format)
    path = tmp_path / "pages.dat"
    path.write_bytes(content)
    source = as_image_source([PAGES[2], path, content, io.BytesIO(content)])
    with pytest.warns(ImageFileWarning, match=r"several pages") as seen:
        source.check()
    assert len(seen) == 1
    assert r"image 1 (" in str(seen[0].message)
    assert "pages.dat') with 3, and 2 other files. Pass pages" in str(seen[0].message)
    for i in range(1, 4):
        assert source.load(i)[0, 0].tolist() == [10, 0, 0]


def test_pages_that_are_chosen_are_no_remark():
    image = Image.open(io.BytesIO(saved("TIFF")))
    image.seek(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = as_image_source([image, *[page.copy() for page in PAGES]])
        source.check()
    assert source.load(0)[0, 0, 0] == 90
    assert image.tell() == 1


@pytest.mark.parametrize("format", ["TIFF", "GIF", "PNG", "WEBP", "MPO", "JPEG"])
def test_one_page_is_no_remark(format):  # noqa: A002
    """Cameras write MPO: a JPEG, and after it a preview."""
    content = saved(format) if format == "MPO" else saved(format, PAGES[:1])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        as_image_source([content]).check()
    assert not [str(w.message) for w in seen if "pages" in str(w.message)]


def test_reduced_copies_are_no_pages():
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(np.zeros((32, 32), np.uint8), subfiletype=0)
        writer.write(np.zeros((16, 16), np.uint8), subfiletype=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_image_source([buffer.getvalue()]).check()
