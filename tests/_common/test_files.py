"""Files that are replaced as a whole: modes, links, leftovers of killed processes, errors."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from skad._common import files as _files
from skad._common.files import replacing, write_text
from skad._common.processes import start_of

posix = pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")


@pytest.fixture
def umask():
    """Set the umask for a test, since it belongs to the process."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@posix
class TestMode:
    @pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
    def test_of_a_new_file_follows_umask(self, tmp_path, umask, mask, expected):
        umask(mask)
        write_text(tmp_path / "a.txt", "new")
        assert mode(tmp_path / "a.txt") == expected

    @pytest.mark.parametrize("given", [0o640, 0o600, 0o666])
    def test_of_a_replaced_file_stays(self, tmp_path, umask, given):
        path = tmp_path / "a.txt"
        path.write_text("old")
        path.chmod(given)
        write_text(path, "new")
        assert (mode(path), path.read_text()) == (given, "new")

    def test_does_not_depend_on_what_the_writer_makes_of_it(self, tmp_path, umask):
        with replacing(tmp_path / "a.bin") as unfinished:
            os.close(os.open(unfinished, os.O_CREAT | os.O_WRONLY, 0o600))
        assert mode(tmp_path / "a.bin") == 0o644


@posix
class TestOwner:
    """A user's file that somebody else replaces, root for example, stays the user's."""

    @pytest.fixture
    def given(self, monkeypatch):
        """Who a file was given to; nobody may give it to a user above 5000."""
        found = []

        def chown(path, owner, group):
            if owner > 5000:
                raise PermissionError(1, "Operation not permitted")
            found.append((owner, group, mode(path)))

        monkeypatch.setattr(os, "chown", chown)
        return found

    def owned(self, path, owner, group, monkeypatch):
        """Make a file seem somebody's."""
        path.write_text("old")
        path.chmod(0o640)
        status = list(path.stat())
        status[4:6] = owner, group
        real = _files._status_of
        monkeypatch.setattr(
            _files, "_status_of", lambda target: real(target) and os.stat_result(status)
        )

    @pytest.mark.parametrize(
        ("owner", "group", "expected"), [(4321, 4322, (4321, 4322)), (6000, 4322, (-1, 4322))]
    )
    def test_stays(self, tmp_path, given, monkeypatch, owner, group, expected):
        path = tmp_path / "a.txt"
        self.owned(path, owner, group, monkeypatch)
        write_text(path, "new")
        assert [found[:2] for found in given] == [expected]
        assert (mode(path), path.read_text()) == (0o640, "new")

    def test_who_gave_it_away_need_not_touch_it_again(self, tmp_path, given, monkeypatch):
        """As in a container whose root may change owners and nothing else."""
        path = tmp_path / "a.txt"
        self.owned(path, 4321, 4322, monkeypatch)
        for name in ("chmod", "open"):
            real = getattr(os, name)

            def refused(file, *args, real=real):
                if given and os.path.basename(file) == "content":
                    raise PermissionError(1, "Operation not permitted")
                return real(file, *args)

            monkeypatch.setattr(os, name, refused)
        write_text(path, "new")
        assert path.read_text() == "new"

    def test_what_may_not_be_given_is_written_all_the_same(self, tmp_path, monkeypatch):
        def refused(*args):
            raise PermissionError(1, "Operation not permitted")

        path = tmp_path / "a.txt"
        self.owned(path, 4321, 4322, monkeypatch)
        monkeypatch.setattr(os, "chown", refused)
        write_text(path, "new")
        assert (mode(path), path.read_text()) == (0o640, "new")

    @pytest.mark.skipif(
        getattr(os, "geteuid", lambda: 1)() != 0, reason="only root may give files away"
    )
    def test_stays_on_the_disk(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("old")
        path.chmod(0o640)
        try:
            os.chown(path, 1234, 1235)
        except OSError:
            pytest.skip("not even root may give files away here")
        write_text(path, "new")
        status = path.stat()
        assert (status.st_uid, status.st_gid, mode(path)) == (1234, 1235, 0o640)


@posix
class TestLinks:
    def test_are_followed(self, tmp_path):
        for name in ("store", "here"):
            (tmp_path / name).mkdir()
        target, link = tmp_path / "store" / "v1.txt", tmp_path / "here" / "current.txt"
        target.write_text("old")
        link.symlink_to(target)
        write_text(link, "new")
        assert link.is_symlink()
        assert target.read_text() == "new"

    def test_that_lead_nowhere_yet(self, tmp_path):
        (tmp_path / "link").symlink_to("later.txt")
        write_text(tmp_path / "link", "new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "later.txt").read_text() == "new"

    def test_to_themselves(self, tmp_path):
        (tmp_path / "link").symlink_to("link")
        with pytest.raises(OSError, match="link") as raised:
            write_text(tmp_path / "link", "new")
        assert raised.value.errno == errno.ELOOP


class TestErrors:
    def check(self, path, kind):
        with pytest.raises(kind) as raised:
            write_text(path, "new")
        assert raised.value.filename == os.fspath(path)
        assert os.fspath(path) in str(raised.value)

    def test_a_missing_folder(self, tmp_path):
        self.check(tmp_path / "no" / "such" / "a.txt", FileNotFoundError)

    @posix
    def test_a_folder_that_is_a_file(self, tmp_path):
        (tmp_path / "file").write_text("")
        self.check(tmp_path / "file" / "a.txt", NotADirectoryError)

    def test_a_folder_in_the_way(self, tmp_path):
        (tmp_path / "a.txt").mkdir()
        self.check(tmp_path / "a.txt", IsADirectoryError)
        assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]

    def test_a_relative_path_is_named_as_it_was_given(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        self.check("no/a.txt", FileNotFoundError)

    @posix
    def test_what_is_no_file(self, tmp_path):
        os.mkfifo(tmp_path / "a.txt")
        self.check(tmp_path / "a.txt", OSError)
        assert stat.S_ISFIFO((tmp_path / "a.txt").stat().st_mode)

    @posix
    @pytest.mark.skipif(hasattr(os, "getuid") and os.getuid() == 0, reason="root may do everything")
    def test_a_folder_that_must_not_be_written(self, tmp_path):
        tmp_path.chmod(0o500)
        self.check(tmp_path / "a.txt", PermissionError)

    def test_a_file_that_must_not_be_written(self, tmp_path, monkeypatch):
        (tmp_path / "a.txt").write_text("old")
        monkeypatch.setattr(os, "access", lambda *_: False)
        self.check(tmp_path / "a.txt", PermissionError)
        assert (tmp_path / "a.txt").read_text() == "old"

    @pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
    def test_a_full_disk(self, tmp_path, monkeypatch, call):
        path = tmp_path / "a.txt"
        path.write_text("old")

        def failing(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, call, failing)
        self.check(path, OSError)
        assert path.read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]

    def test_others_stay_as_they_are(self, tmp_path):
        with pytest.raises(KeyError), replacing(tmp_path / "a.txt"):
            raise KeyError("of the writer")
        with pytest.raises(FileNotFoundError, match="elsewhere"), replacing(tmp_path / "a.txt"):
            raise FileNotFoundError(
                errno.ENOENT, "missing", os.fspath(tmp_path.parent / "elsewhere")
            )
        assert not list(tmp_path.iterdir())


def test_names_as_long_as_they_may_be(tmp_path):
    path = tmp_path / f"{'n' * 251}.txt"
    write_text(path, "new")
    write_text(path, "newer")
    assert path.read_text() == "newer"


def test_names_that_are_no_unicode(tmp_path):
    path = tmp_path / "\udcff\udc80.txt"
    try:
        path.write_text("old")
    except (OSError, UnicodeError):
        pytest.skip("this file system knows no such names")
    write_text(path, "of \udcff")
    assert path.read_text() == r"of \udcff"


def test_content_is_on_the_disk_before_it_takes_the_place(tmp_path, monkeypatch):
    seen = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (seen.append("replace"), replace(*names)))
    write_text(tmp_path / "a.txt", "new")
    assert seen[:2] == ["fsync", "replace"]
    assert os.name != "posix" or seen[2:] == ["fsync"]  # of the folder


class TestLeftovers:
    CODE = (
        "import sys, time; from skad._common.files import replacing\n"
        "with replacing(sys.argv[1]) as unfinished:\n"
        "    unfinished.write_text('half'); print('ready', flush=True); time.sleep(60)"
    )

    def start(self, path):
        process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, os.fspath(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        return process

    @posix
    def test_of_a_killed_process_go_with_the_next_file(self, tmp_path):
        with self.start(tmp_path / "a.txt") as process:
            assert len(list(tmp_path.iterdir())) == 1
            write_text(tmp_path / "b.txt", "of another")
            assert len(list(tmp_path.iterdir())) == 2  # it is alive
            process.send_signal(signal.SIGKILL)
            process.wait()
        write_text(tmp_path / "b.txt", "of another")
        assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]

    def leftover(self, folder, host, pid, age):
        left = folder / f".skad-{host}-{pid}-0.part"
        left.mkdir()
        (left / "content").write_text("half")
        os.utime(left, (time.time() - age,) * 2)
        return left

    def test_of_other_machines_go_after_a_day(self, tmp_path):
        new = self.leftover(tmp_path, "cafe", 1, 3600)
        old = self.leftover(tmp_path, "cafe", 2, 100_000)
        write_text(tmp_path / "a.txt", "new")
        assert new.exists()
        assert not old.exists()

    def test_of_this_process_stay(self, tmp_path):
        name = f"{os.getpid()}-{start_of(os.getpid())}"
        mine = self.leftover(tmp_path, _files._host(), name, 3600)
        write_text(tmp_path / "a.txt", "new")
        assert mine.exists()

    @pytest.mark.skipif(not start_of(os.getpid()), reason="this system does not tell starts")
    def test_of_an_earlier_process_of_that_number_go(self, tmp_path):
        """Numbers are given again."""
        other = self.leftover(tmp_path, _files._host(), f"{os.getpid()}-12", 3600)
        write_text(tmp_path / "a.txt", "new")
        assert not other.exists()

    def test_other_names_are_left_alone(self, tmp_path):
        names = [".skad-odd.part", ".skad-.part", f".skad-{_files._host()}-x-1.part", "a.part"]
        for name in names:
            (tmp_path / name).mkdir()
        write_text(tmp_path / "a.txt", "new")
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names, "a.txt"])
