"""Who works on what, across processes and machines."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

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


@pytest.fixture
def elsewhere():
    """Call in another thread, which lives on."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda function, *args: pool.submit(function, *args)


def seconds(function, *args):
    begun = time.monotonic()
    function(*args)
    return time.monotonic() - begun


def test_one_holds_it_and_gives_it_back(path, elsewhere):
    mine, other = Claims(), Claims()
    assert elsewhere(mine.take, path).result()
    assert not other.take(path)
    other.release(path)  # it is not its own
    assert not other.take(path)
    elsewhere(mine.release, path).result()
    assert other.take(path)


def interrupted(monkeypatch, path, when):
    """Lay a claim, and be interrupted before its owner is written, or after."""
    write = os.write

    def stopped(*args):
        if when == "after":
            write(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            Claims().take(path)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_leaves_no_claim(path, monkeypatch, when):
    interrupted(monkeypatch, path, when)
    assert not path.exists()


def test_what_the_thread_itself_has_left_is_no_reason_to_wait(path):
    assert Claims().take(path)
    assert seconds(Claims().wait, path) < 0.1
    assert Claims().take(path)


def test_a_thread_that_has_ended_is_noticed_at_once(path):
    thread = threading.Thread(target=Claims().take, args=(path,))
    thread.start()
    thread.join()
    assert path.exists()
    assert seconds(Claims().wait, path) < 0.1
    assert Claims().take(path)


@pytest.mark.parametrize("content", ["elsewhere\n ", "elsewhere\n\t\n", "\n\n\n\n"])
def test_what_says_nothing_is_another_process(content):
    assert claims._described(content) == "another process"


def test_a_process_that_has_ended_is_noticed_at_once(path, ended):
    path.write_text(ended)
    assert seconds(Claims().wait, path) < 0.5
    assert Claims().take(path)
    assert path.read_text().startswith(f"{claims._owner(os.getpid())}\n")


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


def test_a_process_that_lives_is_waited_for(path, monkeypatch, elsewhere):
    monkeypatch.setattr(claims, "_PATIENCE", 0.0)
    elsewhere(Claims().take, path).result()
    waiting = Claims()
    elsewhere(time.sleep, 0.3)
    elsewhere(Claims().release, path)
    assert 0.2 < seconds(waiting.wait, path) < 5
    elsewhere(Claims().take, path).result()
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


def test_short_waits_are_not_told(path, elsewhere):
    told = []
    elsewhere(Claims().take, path).result()
    elsewhere(time.sleep, 0.1)
    elsewhere(Claims().release, path)
    Claims().wait(path, told.append)
    assert not told


def test_what_cannot_be_written_leaves_nothing(path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        Claims().take(path)
    assert not path.exists()
