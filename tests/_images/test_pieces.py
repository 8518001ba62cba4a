"""Large images are read piece by piece, and give the canvas that the whole gives."""

import numpy as np
import pytest
from PIL import Image

from skad._images import Geometry, Tiling, as_image_source, iter_batches, pieces
from skad._images.pieces import ArrayPieces, WindowedCanvas, pieces_of
from skad._images.roi import Mask

tifffile = pytest.importorskip("tifffile")

OWN = Tiling(32, None, None, (8, 8), 8)
GEOMETRIES = {
    "native": Geometry("native", 32, tiling=OWN),
    "squash": Geometry("squash", (48, 64)),
    "enlarged": Geometry("squash", 200),
    "pad": Geometry("pad", 64),
    "crop": Geometry("crop", 48),
}
WINDOWS = [
    (slice(0, 32), slice(0, 32)),
    (slice(16, 48), slice(8, 40)),
    (slice(13, 14), slice(0, 48)),
]


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (123, 77, 3), dtype=np.uint8)


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr("skad._images.sources.LARGE", 0)


def of_whole(array, geometry, mask=None):
    return WindowedCanvas(ArrayPieces(array, "image"), geometry, mask)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_windows_are_those_of_the_whole(image, name, dtype):
    geometry = GEOMETRIES[name]
    if dtype == "float32":
        image = np.random.default_rng(0).random((123, 77, 3), dtype=np.float32)
    whole, canvas = geometry.apply(image), of_whole(image, geometry)
    assert canvas.shape == whole.shape
    for rows, columns in WINDOWS:
        window = canvas[rows, columns]
        assert window.dtype == whole.dtype
        difference = np.abs(window.astype(float) - whole[rows, columns].astype(float))
        if name == "native":
            assert difference.max() == 0
        # Pillow rounds rows or columns first, whichever costs less.
        assert difference.max() <= (1 if dtype == "uint8" else 1e-5)


@pytest.mark.parametrize("name", ["native", "pad"])
def test_windows_in_padding_repeat_the_rim(image, name):
    geometry = GEOMETRIES[name]
    whole, canvas = geometry.apply(image), of_whole(image, geometry)
    height, width = whole.shape[:2]
    for rows, columns in [
        (slice(height - 3, height), slice(0, width)),
        (slice(0, height), slice(width - 2, width)),
        (slice(0, 5), slice(0, 4)),
    ]:
        assert np.abs(canvas[rows, columns].astype(int) - whole[rows, columns]).max() <= 1


def test_what_lies_outside_of_a_region_is_grey(image):
    inside = np.zeros((123, 77), dtype=bool)
    inside[20:60, 10:50] = True
    geometry, mask = GEOMETRIES["native"], Mask(inside)
    whole, canvas = geometry.apply(mask.blank(image)), of_whole(image, geometry, mask)
    assert np.array_equal(canvas[16:48, 8:40], whole[16:48, 8:40])


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (32, 48), "compression": "zlib", "photometric": "rgb"},
        {"rowsperstrip": 10, "photometric": "rgb"},
        {"rowsperstrip": 10, "compression": "zlib", "predictor": True, "photometric": "rgb"},
        {"photometric": "rgb"},
    ],
)
def test_tiff_files_are_read_where_they_are_needed(image, tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, **options)
    found = pieces_of(path, "image")
    assert found.shape == (123, 77)
    assert not found.is_whole
    for rows, columns in [(slice(0, 123), slice(0, 77)), (slice(30, 70), slice(47, 50))]:
        assert np.array_equal(found.read(rows, columns), image[rows, columns])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_grey_tiff_files_are_what_pillow_makes_of_them(tmp_path, dtype):
    path = tmp_path / "a.tif"
    top = np.iinfo(dtype).max
    grey = np.random.default_rng(0).integers(0, top, (40, 50), dtype=dtype, endpoint=True)
    tifffile.imwrite(path, grey, tile=(16, 16))
    whole = as_image_source([path]).load(0)
    assert np.array_equal(pieces_of(path, "image").read(slice(0, 40), slice(0, 50)), whole)


def test_other_files_are_decoded_as_a_whole(image, tmp_path):
    png, turned, pages, ycbcr = (tmp_path / f"{n}.tif" for n in "abcd")
    Image.fromarray(image).save(png, format="PNG")
    tifffile.imwrite(turned, image, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    tifffile.imwrite(pages, np.stack([image, image]), photometric="rgb")
    Image.fromarray(image).save(ycbcr, compression="jpeg")
    for path in (png, turned, pages, ycbcr):
        assert pieces_of(path, "image") is None
    assert pieces_of(Image.fromarray(image), "image") is None


def test_a_damaged_strip_is_named(image, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, tile=(32, 32), compression="zlib", photometric="rgb")
    found = pieces_of(path, "image 3 ('a.tif')")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
    content = bytearray(path.read_bytes())
    content[page.dataoffsets[5] : page.dataoffsets[5] + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"image 3 \('a.tif'\).*cannot be read"):
        found.read(slice(0, 123), slice(0, 77))


class Lazy:
    """An array of images that is not in memory."""

    def __init__(self, array):
        self._array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0
        self.ndim = array.ndim

    def __len__(self):
        return len(self._array)

    def __getitem__(self, key):
        found = self._array[key]
        self.read += found.size
        return found

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._array, dtype=dtype)


def test_arrays_that_are_not_in_memory_are_read_in_pieces(image, everything_is_large):
    lazy = Lazy(np.stack([image, image[::-1]]))
    source = as_image_source(lazy)
    (batch,) = iter_batches(source, GEOMETRIES["native"], 2, n_workers=0, windowed=True)
    before = lazy.read
    window = batch.pixels[1][8:40, 8:40]
    assert np.array_equal(window, image[::-1][8:40, 8:40])
    assert lazy.read - before == window.size


def test_small_images_are_not(image):
    source = as_image_source([image])
    (batch,) = iter_batches(source, GEOMETRIES["squash"], 2, windowed=True)
    assert isinstance(batch.pixels, np.ndarray)


def test_only_what_must_be_decoded_as_a_whole_takes_bytes(image, tmp_path, everything_is_large):
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    Image.fromarray(image).save(tmp_path / "a.png")
    source = as_image_source([tmp_path / "a.tif", tmp_path / "a.png", image])
    assert [source.bytes_to_decode(i) for i in range(3)] == [0, image.size, 0]
    assert source.pieces(1).is_whole


def test_pillows_limit_is_on_decoding_at_once(image, tmp_path, monkeypatch, everything_is_large):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    Image.fromarray(image).save(tmp_path / "a.png")
    for name, is_read in [("a.tif", True), ("a.png", False)]:
        for windowed in (False, True):
            source = as_image_source([tmp_path / name])
            source.windowed = windowed
            if windowed and is_read:
                source.check(32)
                assert source.shape(0) == (123, 77)
                continue
            with pytest.raises(ValueError, match="MAX_IMAGE_PIXELS"):
                source.check(32)


def test_the_limit_is_that_of_the_module():
    assert pieces.LARGE == 1 << 24
