"""Files score as the arrays of their numbers do, or are refused by name before any work starts."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from skad._images import as_image_source
from skad._images.depth import check_depth

tifffile = pytest.importorskip("tifffile")

FORMATS = Image.registered_extensions()
RNG = np.random.default_rng(0)
REMEDY = r"tifffile\.imread.*\[\.\.\., ::-1\].*8 bits"


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def saved(array, format, **options):  # noqa: A002
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **options)
    return buffer.getvalue()


def png(array, colour_type):
    def chunk(kind, data):
        head = struct.pack(">I", len(data)) + kind + data
        return head + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, colour_type, 0, 0, 0)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    parts = [chunk(b"IHDR", size), chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pnm(magic, white, array):
    height, width = array.shape[:2]
    return f"{magic} {width} {height} {white}\n".encode() + array.astype(">u2").tobytes()


def numbers(dtype, *shape, top=256):
    return RNG.integers(0, top, shape or (20, 24)).astype(dtype)


DEEP = numbers(np.uint16, top=65536)
FLOATS = RNG.random((20, 24)).astype(np.float32)


@pytest.mark.parametrize(
    ("content", "array"),
    [
        *[(tiff(numbers_), numbers_) for numbers_ in (numbers("i2"), numbers("i4"), numbers("u4"))],
        *[(tiff(a, compression="zlib"), a) for a in (numbers("i2"), numbers("u4"), DEEP, FLOATS)],
        *[(tiff(a, byteorder=">"), a) for a in (numbers("i2"), numbers("i4"), DEEP, FLOATS)],
        (tiff(DEEP, tile=(16, 16)), DEEP),
        (saved(DEEP, "PNG"), DEEP),
        (png(DEEP, 0), DEEP),
        (saved(DEEP, "JPEG2000", irreversible=False), DEEP),
        (pnm("P5", 65535, DEEP), DEEP),
        (b"P2 3 1 65535\n1 2 65535\n", np.array([[1, 2, 65535]], np.uint16)),
        pytest.param(
            b"Pf\n24 20\n-1.0\n" + FLOATS[::-1].astype("<f4").tobytes(),
            FLOATS,
            marks=pytest.mark.skipif(".pfm" not in FORMATS, reason="Pillow before 10.3"),
        ),
        (tiff(255 - numbers("u1") * 0, photometric="miniswhite"), np.zeros((20, 24), np.uint8)),
    ],
)
def test_what_is_read_is_the_array(content, array):
    source = as_image_source([content, array])
    source.check()
    first, second = source.load(0), source.load(1)
    assert first.dtype == second.dtype
    np.testing.assert_array_equal(first, second)


COLOUR = numbers("u2", 20, 24, 3, top=65536)
JP2 = saved(DEEP, "JPEG2000", irreversible=False)
SIZES = JP2.index(b"\xff\x4f\xff\x51") + 42  # number of bits, less one, and the sign


@pytest.mark.parametrize(
    ("content", "matter"),
    [
        (png(COLOUR, 2), "keeps 8 in the mode RGB"),
        (png(numbers("u2", 20, 24, 4, top=65536), 6), "keeps 8 in the mode RGBA"),
        (png(numbers("u2", 20, 24, 2, top=65536), 4), "keeps 8"),
        (tiff(COLOUR, photometric="rgb"), "keeps 8 in the mode RGB"),
        (tiff(COLOUR, photometric="rgb", byteorder=">"), "keeps 8 in the mode RGB"),
        (tiff(COLOUR, photometric="rgb", compression="zlib"), "keeps 8 in the mode RGB"),
        (tiff(COLOUR.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), "keeps 8"),
        (tiff(numbers("u2", 20, 24, 4), photometric="separated", planarconfig="contig"), "CMYK"),
        (tiff(numbers("i1", top=100)), "signed numbers of 8 bits"),
        (pnm("P6", 65535, COLOUR), "keeps 8 in the mode RGB"),
        (pnm("P5", 4095, DEEP // 16), "stretches to 16"),
        (b"P2 3 1 1023\n1 2 1023\n", "stretches to 16"),
        (JP2[:SIZES] + b"\x0b" + JP2[SIZES + 1 :], "stretches to 16"),
        (JP2[:SIZES] + b"\x8f" + JP2[SIZES + 1 :], "signed"),
        (saved(numbers("u1", 20, 24, 3), "SGI", bpc=2), "keeps 8"),
        (saved(FLOATS, "SPIDER"), "as SPIDER"),
    ],
)
def test_what_pillow_would_change_is_refused(tmp_path, content, matter):
    path = tmp_path / "deep.dat"
    path.write_bytes(content)
    with Image.open(path) as image:
        for item in (path, content, io.BytesIO(content), image):
            source = as_image_source([item])
            for work in (source.check, lambda source=source: source.load(0)):
                with pytest.raises(ValueError, match=rf"^image 0 \(.*{matter}.*{REMEDY}"):
                    work()


ALPHA = numbers("u1", 20, 24, 4)


@pytest.mark.parametrize(
    ("content", "matter"),
    [
        (
            tiff(DEEP, photometric="miniswhite"),
            r"0 as white .* at 16 bits.*iinfo\(a.dtype\).max - a",
        ),
        (tiff(DEEP, photometric="miniswhite", compression="zlib"), r"iinfo\(a.dtype\).max - a"),
        (tiff(FLOATS, photometric="miniswhite"), r"0 as white .* at 32 bits.*invert it: 1 - a"),
        *[
            (tiff(ALPHA, photometric="rgb", extrasamples=["assocalpha"], **options), "ExtraSamples")
            for options in ({}, {"compression": "zlib"}, {"byteorder": ">"}, {"rowsperstrip": 4})
        ],
        *[
            (f"{magic} 3 1 {white}\n1 2 1\n".encode(), f"{white} as white.*maxval.*floats")
            for magic, white in (("P2", 100), ("P2", 2), ("P2", 254), ("P5", 127), ("P5", 4))
        ],
        (b"P6 1 1 31\n\1\2\3", "31 as white.*maxval of 255"),
    ],
)
def test_each_has_its_own_remedy(content, matter):
    source = as_image_source([content])
    for work in (source.check, lambda: source.load(0)):
        with pytest.raises(ValueError, match=rf"^image 0 \(.*{matter}"):
            work()


@pytest.mark.parametrize("white", [1, 3, 5, 15, 17, 51, 85, 255])
def test_a_white_that_divides_255_is_whole(white):
    content = f"P2 2 1 {white}\n{white} 1\n".encode()
    source = as_image_source([content, np.array([[1.0, 1 / white]])])
    source.check()
    np.testing.assert_array_equal(source.load(0), source.load(1))


@pytest.mark.parametrize("content", [b"P1 3 1\n1 0 1\n", b"P4 3 1\n\xa0"])
def test_bitmaps_of_netpbm(content):
    source = as_image_source([content])
    source.check()
    np.testing.assert_array_equal(source.load(0)[0, :, 0], [0, 255, 0])


@pytest.mark.parametrize("kind", ["unassalpha", "unspecified"])
def test_straight_alpha_is_dropped(kind):
    source = as_image_source([tiff(ALPHA, photometric="rgb", extrasamples=[kind])])
    source.check()
    np.testing.assert_array_equal(source.load(0), ALPHA[:, :, :3])


@pytest.mark.parametrize(
    ("dtype", "wrong"),
    [("i2", -1), ("i2", 256), ("i4", 65535), ("i4", -(2**31)), ("u4", 2**32 - 1)],
)
def test_wide_integers_beyond_8_bits_are_refused_in_files_and_arrays(dtype, wrong):
    array = numbers(dtype)
    array[3, 4] = wrong
    for item in (tiff(array), array):
        with pytest.raises(ValueError, match=r"^image 0 .*0\.\.255 unless they are uint16"):
            as_image_source([item]).load(0)


def test_colours_of_5_bits_are_whole():
    """BMP calls them BGR;16, too."""
    head = struct.pack("<2sIII", b"BM", 54 + 8, 0, 54)
    info = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 0, 8, 0, 0, 0, 0)
    source = as_image_source([head + info + struct.pack("<4H", 0x7FFF, 0, 0, 0)])
    source.check()
    assert source.load(0).max() == 255


def test_an_image_in_memory_counts_by_what_it_holds():
    image = Image.open(io.BytesIO(png(COLOUR, 2)))
    image.load()
    np.testing.assert_array_equal(as_image_source([image]).load(0), np.asarray(image))


def test_avif_of_many_bits():
    """Pillow writes 8 bits only: the mark of more is put into the header of such a file."""
    if ".avif" not in FORMATS:
        pytest.skip("Pillow without AVIF")
    content = saved(numbers("u1", 20, 24, 3), "AVIF")
    source = as_image_source([content])
    source.check()
    assert source.load(0).shape == (20, 24, 3)
    mark = content.index(b"av1C") + 6
    with Image.open(io.BytesIO(content)) as image:
        image.fp = io.BytesIO(content[:mark] + bytes([content[mark] | 0x40]) + content[mark + 1 :])
        with pytest.raises(ValueError, match=f"^x: .*keeps 8 in the mode RGB.*{REMEDY}"):
            check_depth(image, "x")
