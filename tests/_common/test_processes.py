"""Which processes live, and which machine they are numbers of."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from skad._common import processes as _processes
from skad._common.processes import is_alive, machine, start_of

posix = pytest.mark.skipif(os.name != "posix", reason="asking a process would end it")


def test_this_machine_has_one_name():
    code = "from skad._common.processes import machine; print(machine())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == machine()


@posix
def test_a_process_lives_until_it_ends():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        start = start_of(process.pid)
        assert is_alive(process.pid, start)
        assert is_alive(process.pid, f"{start}1") is False  # another process of that number
    assert is_alive(process.pid, start) is False


NAMES = [b"pr\xfcfung", "Prüfstand äöü".encode()[:15], b"a) R 1 2 (b", b"\xff" * 15, b"S) (\n x"]


@pytest.mark.skipif(not os.path.exists("/proc/self/comm"), reason="names of processes on Linux")
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_whatever_a_process_is_called(name):
    """Names are bytes, and cut after fifteen, inside a character too."""
    comm = Path("/proc/self/comm")
    before, start = comm.read_bytes(), start_of(os.getpid())
    try:
        comm.write_bytes(name)
        assert start_of(os.getpid()) == start
    finally:
        comm.write_bytes(before)
    assert start.isdecimal()


@pytest.mark.parametrize("name", ["line3", "caf\udce9", "\ud800"], ids=ascii)
def test_whatever_a_machine_is_called(name, monkeypatch):
    monkeypatch.setattr(_processes.socket, "gethostname", lambda: name)
    found = machine.__wrapped__()
    assert found.encode().startswith(name.encode("ascii", "backslashreplace")[:4])


@posix
@pytest.mark.parametrize("number", [2**31 - 1, 2**80])
def test_numbers_of_nobody(number):
    assert is_alive(number, "") is False


def test_where_nothing_may_be_asked(monkeypatch):
    start = start_of(os.getpid())
    monkeypatch.setattr(_processes, "os", SimpleNamespace(name="nt"))  # without kill
    assert is_alive(os.getpid(), start) is None
