"""Memory as users write it, and arrays on disk."""

import numpy as np
import pytest

from skad._memory import parse_bytes, temporary_array


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (5, 5),
        ("5", 5),
        ("2kB", 2000),
        ("1.5 GB", 1_500_000_000),
        ("3M", 3_000_000),
        ("2 MiB", 2 * 1024**2),
    ],
)
def test_memory_limits(limit, expected):
    assert parse_bytes(limit) == expected


@pytest.mark.parametrize("limit", ["much", "3 XB", ""])
def test_what_is_no_size(limit):
    with pytest.raises(ValueError, match="neither a number of bytes nor like"):
        parse_bytes(limit)


def test_an_array_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = temporary_array((3, 4), "the maps", "fit on fewer images")
    array[:] = 1
    assert isinstance(array, np.memmap)
    assert array.dtype == np.float32
    assert not any(tmp_path.iterdir())  # nothing to clean up, whatever happens


def test_a_disk_that_is_too_small():
    with pytest.raises(OSError, match=r"the maps take .* GB.*TMPDIR.*, fit on fewer images"):
        temporary_array((10**9, 10**7), "the maps", "fit on fewer images")
