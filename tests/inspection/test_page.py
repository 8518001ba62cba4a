"""The page of a report: self-contained, written whole or not at all, in little memory."""

import os
import tracemalloc
from io import BytesIO

import pytest
from page_reader import PageReader
from PIL import Image

from skad.inspection._page import Case, Page, Section, write_page

HOSTILE = "<script>alert(1)</script> \"'& {{ 7 * 7 }}{% raw %} 漢字 😀"


def png():
    file = BytesIO()
    Image.new("L", (2, 2)).save(file, format="png")
    return file.getvalue()


def make_page(text="text", n_cases=2, picture=None):
    picture = png() if picture is None else picture
    cases = [Case(picture, f"image {i}: {text}", text, [text]) for i in range(n_cases)]
    return Page(
        title=text,
        subtitle=text,
        summary=[("images", text)],
        histogram=picture,
        scale=picture,
        has_truth=False,
        sections=[Section("First", text, cases), Section("Second", text, cases)],
        parameters=[("backbone", text)],
        versions=[("skad", text)],
    )


def test_texts_are_shown_as_they_are_and_never_run(tmp_path):
    write_page(make_page(HOSTILE), tmp_path / "r.html")
    page = PageReader(tmp_path / "r.html")
    assert "script" not in page.tags
    assert page.rows == {"images": HOSTILE, "backbone": HOSTILE, "skad": HOSTILE}
    assert page.captions == [f"image {i}: {HOSTILE}" for i in (0, 1, 0, 1)]
    assert page.headings == ["Summary", "Scores", "First", "Second", "Parameters", "Versions"]
    assert page.alts[2] == f"image 0: {HOSTILE}: image, heat map, outlines"
    # The title twice, the subtitle, a text per section, a verdict and a region per image, those above.
    assert page.text.count(HOSTILE) == 3 + 2 + 4 + 4 + 4 + 3


def test_nothing_is_loaded(tmp_path):
    write_page(make_page(), tmp_path / "r.html")
    page = PageReader(tmp_path / "r.html")
    assert page.source.startswith("<!DOCTYPE html>")
    assert not {"script", "link", "iframe", "object", "a"} & set(page.tags)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not any(word in page.source for word in ("url(", "@import", "http:", "https:"))
    assert "default-src 'none'" in page.source
    assert 'name="viewport"' in page.source
    assert all(page.alts)


def test_colours_are_explained_once(tmp_path):
    for has_truth in (True, False):
        write_page(make_page()._replace(has_truth=has_truth), tmp_path / "r.html")
        page = PageReader(tmp_path / "r.html")
        assert page.text.count("Green:") == 1
        assert page.text.count("Orange: ground truth.") == has_truth
        assert page.alts.count("Colour scale of the heat maps") == 1


def test_many_images_take_no_memory(tmp_path):
    """Of 27 MB of HTML, one picture is in memory at a time."""
    page = make_page(n_cases=200, picture=os.urandom(50_000))
    tracemalloc.start()
    write_page(page, tmp_path / "r.html")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "r.html").stat().st_size > 20e6
    assert peak < 1e6


def test_an_old_page_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")

    def full_disk(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="disk full"):
        write_page(make_page(), path)
    monkeypatch.undo()
    broken = make_page()._replace(scale=None)
    with pytest.raises(TypeError):  # in the middle of the page
        write_page(broken, path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]
    write_page(make_page(), path)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]
