"""What the system says of files, with the path; names of all kinds."""

import errno
import os
import stat

import numpy as np
import pytest
import safetensors
from conftest import make_detector

import skad
from skad._features import backbones

posix = pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")


@pytest.fixture(scope="module")
def simple(good):
    return make_detector(coreset_size=6).fit(good)


class TestSaving:
    def fails(self, detector, path, kind=OSError):
        with pytest.raises(kind) as raised:
            skad.save(detector, path)
        assert raised.value.filename == os.fspath(path)
        assert os.fspath(path) in str(raised.value)
        return raised.value

    def test_into_a_missing_folder(self, simple, tmp_path):
        self.fails(simple, tmp_path / "no" / "such" / "a.skad", FileNotFoundError)

    def test_over_a_folder(self, simple, tmp_path):
        (tmp_path / "a.skad").mkdir()
        self.fails(simple, tmp_path / "a.skad", IsADirectoryError)

    @pytest.mark.parametrize(
        ("said", "number"),
        [
            (
                "Error while serializing: I/O error: No space left on device (os error 28)",
                errno.ENOSPC,
            ),
            (
                "Error while serializing: IoError(Os { code: 13, kind: PermissionDenied })",
                errno.EACCES,
            ),
            ("Error while serializing: something else", errno.EIO),
        ],
    )
    def test_what_safetensors_passes_on(self, simple, tmp_path, monkeypatch, said, number):
        def failing(*_, **__):
            raise safetensors.SafetensorError(said)

        monkeypatch.setattr("safetensors.numpy.save_file", failing)
        error = self.fails(simple, tmp_path / "a.skad")
        assert error.errno == number
        assert isinstance(error, PermissionError) == (number == errno.EACCES)
        assert not list(tmp_path.iterdir())

    def test_beyond_a_limit_of_the_system(self, simple, tmp_path):
        """As on a full disk, a part is written before it fails."""
        resource = pytest.importorskip("resource")
        skad.save(simple, tmp_path / "a.skad")
        content = (tmp_path / "a.skad").read_bytes()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, before[1]))
        try:
            error = self.fails(simple, tmp_path / "a.skad")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert error.errno == errno.EFBIG
        assert (tmp_path / "a.skad").read_bytes() == content
        assert [p.name for p in tmp_path.iterdir()] == ["a.skad"]

    @posix
    def test_mode_and_links(self, simple, tmp_path):
        before = os.umask(0o027)
        try:
            skad.save(simple, tmp_path / "v1.skad")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "v1.skad").stat().st_mode) == 0o640
        (tmp_path / "v1.skad").chmod(0o604)
        (tmp_path / "line.skad").symlink_to("v1.skad")
        skad.save(simple, tmp_path / "line.skad")
        assert stat.S_ISLNK((tmp_path / "line.skad").lstat().st_mode)
        assert stat.S_IMODE((tmp_path / "v1.skad").stat().st_mode) == 0o604


class TestLoading:
    def fails(self, path, kind):
        with pytest.raises(kind) as raised:
            skad.load(path)
        assert raised.value.filename == os.fspath(path)

    def test_what_is_not_there(self, tmp_path):
        self.fails(tmp_path / "a.skad", FileNotFoundError)
        self.fails(tmp_path / "no" / "a.skad", FileNotFoundError)

    def test_a_folder(self, tmp_path):
        (tmp_path / "a.skad").mkdir()
        self.fails(tmp_path / "a.skad", (IsADirectoryError, PermissionError))

    @posix
    def test_what_is_no_file(self, tmp_path):
        """Reading it would wait for ever."""
        os.mkfifo(tmp_path / "a.skad")
        self.fails(tmp_path / "a.skad", OSError)

    @posix
    @pytest.mark.skipif(hasattr(os, "getuid") and os.getuid() == 0, reason="root may do everything")
    def test_what_must_not_be_read(self, simple, tmp_path):
        skad.save(simple, tmp_path / "a.skad")
        (tmp_path / "a.skad").chmod(0)
        self.fails(tmp_path / "a.skad", PermissionError)


@pytest.mark.parametrize("name", ["n" * 250, "\udcff\udc80", "ä 日本 \n", "-"])
def test_names(simple, good, tmp_path, name):
    path = tmp_path / f"{name}.skad"
    try:
        path.touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system knows no such names")
    skad.save(simple, path)
    np.testing.assert_array_equal(skad.load(path).score_samples(good), simple.score_samples(good))


def test_weights_in_a_folder_whose_name_is_no_unicode(good, tmp_path):
    folder = tmp_path / "\udcff"
    try:
        folder.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("this file system knows no such names")
    skad.save(make_detector().fit(good), folder / "a.skad", include_backbone=True)
    detector = skad.load(folder / "a.skad").fit(good)
    skad.save(detector, tmp_path / "b.skad")
    backbones._alive.clear()  # as in another process
    backbones._latest.clear()
    loaded = skad.load(tmp_path / "b.skad")
    assert loaded.weights == os.fspath(folder / "a.skad")
    np.testing.assert_array_equal(loaded.score_samples(good), detector.score_samples(good))
