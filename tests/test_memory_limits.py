"""Memory as users write it, and arrays on disk."""

import errno
import os
import tempfile

import numpy as np
import pytest
from conftest import make_detector, make_reconpatch, make_recontrast

from skad._common.memory import parse_bytes, temporary_array


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (5, 5),
        ("5", 5),
        ("2kB", 2000),
        ("1.5 GB", 1_500_000_000),
        ("3M", 3_000_000),
        ("2 MiB", 2 * 1024**2),
        (" 1.5 gb ", 1_500_000_000),
        ("1.GB", 1_000_000_000),
        (".5 kB", 500),
        ("1B", 1),
        (np.int64(7), 7),
        (5e9, 5_000_000_000),
    ],
)
def test_memory_limits(limit, expected):
    assert parse_bytes(limit) == expected


@pytest.mark.parametrize(
    "limit",
    [
        *(
            "much",
            "3 XB",
            "",
            " ",
            "GB",
            ".",
            ".GB",
            "1.5.2GB",
            "1,5GB",
            "1e9",
            "1_000",
            "0x10",
            "4 G B",
        ),
        *("-1GB", "+1GB", "0", "0GB", "0.1", "0.0001kB", "nan", "nanGB", "inf", "infGB"),
        *(
            "\u0664GB",
            "\u00b2GB",
            "4\u212aB",
            "4G\u0131B",
            "\uff14GB",
            "9" * 5000,
            "1" * 400 + "TB",
        ),
        *(0, -1, -(10**30), 0.5, float("nan"), float("inf"), False),
    ],
)
def test_what_is_no_size(limit):
    with pytest.raises(ValueError, match=r"max_memory=.* neither a number of bytes nor like '4GB'"):
        parse_bytes(limit)


def test_the_parameter_is_named():
    with pytest.raises(ValueError, match="max_size='4XB' is neither"):
        parse_bytes("4XB", name="max_size")


@pytest.mark.parametrize("maker", [make_detector, make_reconpatch, make_recontrast])
@pytest.mark.parametrize("limit", ["1.5.2GB", "GB", "-1GB", "0"])
def test_of_a_detector(good, maker, limit):
    with pytest.raises(ValueError, match=f"max_memory='{limit}' is neither"):
        maker(max_memory=limit).fit(good)


def test_an_array_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = temporary_array((3, 4), "the maps", "fit on fewer images")
    array[:] = 1
    assert isinstance(array, np.memmap)
    assert array.dtype == np.float32
    assert not any(tmp_path.iterdir())  # nothing to clean up, whatever happens


def check_refused(shape, folder):
    with pytest.raises(
        OSError, match=r"the maps take .* GB.*TMPDIR.*, fit on fewer images"
    ) as raised:
        temporary_array(shape, "the maps", "fit on fewer images")
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == folder


@pytest.mark.parametrize("shape", [(10**9, 10**7), (2**40, 2**40)])
def test_a_disk_that_is_too_small(shape):
    check_refused(shape, tempfile.gettempdir())


class TestSpaceIsTaken:
    """A map of a sparse file ends the process on a disk that has filled up since."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        return str(tmp_path)

    def test_at_once(self, monkeypatch):
        sizes = []
        memmap = np.memmap

        def watched(file, **params):
            sizes.append(os.fstat(file.fileno()).st_blocks * 512)
            return memmap(file, **params)

        monkeypatch.setattr(np, "memmap", watched)
        array = temporary_array((300, 1001), "the maps", "fit on fewer images")
        assert sizes[0] >= array.nbytes
        assert not array.any()

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
    def test_or_refused(self, folder, monkeypatch, number):
        """Between the look at the free space and the array somebody else has taken it."""

        def full(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
        check_refused((3, 4), folder)

    @pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
    def test_or_written_where_it_cannot_be_reserved(self, monkeypatch, number):
        def unknown(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "posix_fallocate", unknown, raising=False)
        self.test_at_once(monkeypatch)

    def test_or_written_where_there_is_no_such_call(self, monkeypatch):
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
        self.test_at_once(monkeypatch)

    def test_other_errors_are_told_as_they_are(self, monkeypatch):
        def broken(*_):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "posix_fallocate", broken, raising=False)
        with pytest.raises(OSError, match="Input/output"):
            temporary_array((3, 4), "the maps", "fit on fewer images")

    def test_by_a_limit_of_the_system(self, folder):
        resource = pytest.importorskip("resource")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        try:
            check_refused((1024, 1024), folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
