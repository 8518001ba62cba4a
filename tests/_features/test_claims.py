"""Who works on what, across processes and machines."""

import os
import subprocess
import sys
import threading
import time

import pytest

from skad._features import claims
from skad._features.claims import Claims


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.claim"


@pytest.fixture
def ended():
    """A process that has ended: its number and its start."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = claims._owner(process.pid)
    process.communicate(b"\n")
    return owner


def seconds(function, *args):
    begun = time.monotonic()
    function(*args)
    return time.monotonic() - begun


def test_one_holds_it_and_gives_it_back(path):
    mine, other = Claims(), Claims()
    assert mine.take(path)
    assert not other.take(path)
    mine.release(path)
    assert other.take(path)


def test_a_process_that_has_ended_is_noticed_at_once(path, ended):
    path.write_text(ended)
    assert seconds(Claims().wait, path) < 0.5
    assert Claims().take(path)
    assert path.read_text() == claims._owner(os.getpid())


def test_a_process_that_nobody_has_waited_for_has_ended(path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    path.write_text(claims._owner(process.pid))
    assert not Claims().is_void(path)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert Claims().is_void(path)
    process.communicate()


def test_numbers_are_given_again(path):
    machine, process = claims._owner(os.getpid()).split("\n")
    path.write_text(f"{machine}\n{process.split()[0]} 1")
    assert Claims().is_void(path)


def test_a_process_that_lives_is_waited_for(path, monkeypatch):
    monkeypatch.setattr(claims, "_PATIENCE", 0.0)
    Claims().take(path)
    waiting = Claims()
    threading.Timer(0.3, lambda: Claims().release(path)).start()
    assert 0.2 < seconds(waiting.wait, path) < 5
    Claims().take(path)
    monkeypatch.setattr(claims, "_LONGEST", 0.1)  # it hangs
    assert seconds(waiting.wait, path) < 5


@pytest.mark.parametrize(
    "content",
    [b"", b"elsewhere\n1 2", b"elsewhere\nnonsense", b"\xff\xfe", b"x" * 10_000],
    ids=["nothing", "another machine", "no number", "no text", "long"],
)
@pytest.mark.parametrize("ahead", [-(10**6), 0, 10**6])
def test_others_are_waited_for_by_the_own_clock(path, monkeypatch, content, ahead):
    monkeypatch.setattr(claims, "_PATIENCE", 0.2)
    path.write_bytes(content)
    os.utime(path, (time.time() + ahead,) * 2)
    waiting = Claims()
    assert not waiting.take(path)
    assert 0.1 < seconds(waiting.wait, path) < 5
    other = path.with_name("other.claim")
    other.write_bytes(content)
    assert seconds(waiting.wait, other) < 0.1  # who was silent once is not waited for again
    assert waiting.take(path)


def test_a_claim_that_changes_is_alive(path, monkeypatch):
    monkeypatch.setattr(claims, "_PATIENCE", 0.2)
    waiting = Claims()
    for number in range(4):
        path.write_text(f"elsewhere\n{number} 0")
        assert not waiting.is_void(path)
        time.sleep(0.1)


def test_who_watches_is_told_once(path, monkeypatch):
    monkeypatch.setattr(claims, "_PATIENCE", 0.5)
    monkeypatch.setattr(claims, "_TELL_AFTER", 0.1)
    path.write_text("line3/boot/4\n12 34")
    told = []
    Claims().wait(path, told.append)
    assert told == [f"waiting for process 12 on line3 at {str(path)!r}"]
    path.write_text("")
    Claims().wait(path, told.append)
    assert told[1].startswith("waiting for another process at")


def test_short_waits_are_not_told(path):
    told = []
    Claims().take(path)
    threading.Timer(0.1, lambda: Claims().release(path)).start()
    Claims().wait(path, told.append)
    assert not told


def test_what_cannot_be_written_leaves_nothing(path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        Claims().take(path)
    assert not path.exists()
