"""What Pillow warns about is said once per call; the filters of the process stay as they are."""

import io
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from skad._images import as_image_source, in_one_call, one_call
from skad._images.notes import _FILTER, listening, say
from skad.exceptions import ImageFileWarning, TabularDataWarning


def heard(call):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    return [(warning.category, str(warning.message)) for warning in seen]


def image_with(**options):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(buffer, **options)
    return buffer.getvalue()


CUT_EXIF = image_with(format="JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0")


@pytest.mark.parametrize("n", [1, 3, 300])
def test_damaged_metadata_is_said_once(n):
    source = as_image_source([image_with(format="PNG"), *[CUT_EXIF] * n])

    def work():
        source.check()
        for i in range(min(n, 3)):
            source.shape(i)
            source.load(i)

    (kind, text), *others = heard(work)
    assert not others
    assert kind is ImageFileWarning
    assert text.startswith("Pillow warns about image 1 (")
    assert "Corrupt EXIF data" in text
    assert ("other file" in text) == (n > 1)
    assert n < 3 or f"{n - 1} other files" in text


def test_large_images_are_said_once(tmp_path, monkeypatch):
    paths = [tmp_path / f"{i}.png" for i in range(81)]
    for path in paths:
        path.write_bytes(image_with(format="PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    source = as_image_source(paths)
    ((kind, text),) = heard(lambda: (source.check(), [source.load(i) for i in range(81)]))
    assert kind is ImageFileWarning
    assert "0.png'), and 80 other files: Image size (600 pixels)" in text


def test_the_warning_points_to_who_called():
    source = as_image_source([CUT_EXIF])
    with pytest.warns(ImageFileWarning) as seen:
        source.check()
    assert seen[0].filename == __file__


def test_others_hear_their_own_warnings_meanwhile():
    """Pillow used by another thread warns there as ever, and so does this one afterwards."""
    inside, done = threading.Event(), threading.Event()

    def open_it():
        with Image.open(io.BytesIO(CUT_EXIF)) as image:
            image.getexif()

    def listen():
        with listening() as texts:
            inside.set()
            done.wait(10)
            open_it()
        return texts

    with ThreadPoolExecutor(1) as pool, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        listener = pool.submit(listen)
        inside.wait(10)
        open_it()
        done.set()
        texts = listener.result()
        here = len(seen)
        open_it()
    assert here > 0
    assert len(texts) == here
    assert len(seen) == 2 * here


def test_filters_are_left_alone_by_many_threads():
    before = [entry for entry in warnings.filters if entry != _FILTER]
    source = as_image_source([image_with(format="PNG")] * 200)
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: source.check(), range(8)):
            pass
    assert [entry for entry in warnings.filters if entry != _FILTER] == before
    assert warnings.filters.count(_FILTER) <= 1


def test_the_filter_is_there_again_after_others_put_back_theirs():
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        with listening() as texts:
            warnings.warn("heard", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="not heard"):
            warnings.warn("not heard", UserWarning, stacklevel=1)
        for _ in range(5):
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", ImportWarning)
            with listening():
                assert warnings.filters[0] == _FILTER
        assert warnings.filters.count(_FILTER) == 1
    assert texts == ["heard"]


def test_the_filter_goes_to_worker_processes():
    assert pickle.loads(pickle.dumps(_FILTER)) == _FILTER
    with warnings.catch_warnings():
        # As scikit-learn makes them anew there.
        warnings.filterwarnings("ignore", message=_FILTER[1].pattern)
        with pytest.warns(UserWarning, match="said"):
            warnings.warn("said", UserWarning, stacklevel=1)


def test_one_call_says_each_kind_once():
    @one_call()
    def call():
        for i in range(3):
            say("pages", f"page {i}", ImageFileWarning)
            with one_call():
                say("rows", f"row {i}", TabularDataWarning)

    expected = [(ImageFileWarning, "page 0"), (TabularDataWarning, "row 0")]
    assert heard(call) == expected
    assert heard(call) == expected  # and each call anew
    assert len(heard(lambda: [say("pages", str(i), ImageFileWarning) for i in range(2)])) == 2


def test_items_that_are_made_one_by_one_belong_to_the_call_around_them():
    def remarks():
        for n in range(3):
            say("kind", "a remark", TabularDataWarning)
            yield n

    def work():
        with one_call():
            assert list(in_one_call(remarks())) == [0, 1, 2]
            say("kind", "a remark", TabularDataWarning)

    assert heard(work) == [(TabularDataWarning, "a remark")]
    assert heard(lambda: list(in_one_call(remarks()))) == [(TabularDataWarning, "a remark")]
