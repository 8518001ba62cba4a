"""Ctrl-C between the steps of a training."""

import os
import signal
import threading

import pytest

from skad._common.interrupts import deferred_interrupt


@pytest.fixture(autouse=True)
def python_handles_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_is_noted_and_the_step_finished():
    done = []
    with deferred_interrupt() as interrupt:
        for step in range(5):
            if interrupt.requested:
                break
            if step == 2:
                press_ctrl_c()
            done.append(step)
    assert done == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_one_raises():
    with pytest.raises(KeyboardInterrupt), deferred_interrupt():  # noqa: PT012
        press_ctrl_c()
        press_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_that_is_raised_elsewhere_counts():
    with deferred_interrupt() as interrupt:
        raise KeyboardInterrupt
    assert interrupt.requested


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="mine"), deferred_interrupt():
        raise RuntimeError("mine")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_program_stays():
    noted = []
    signal.signal(signal.SIGINT, lambda *_: noted.append(True))
    with deferred_interrupt() as interrupt:
        press_ctrl_c()
    assert noted == [True]
    assert not interrupt.requested


def test_another_thread_changes_nothing():
    found = []

    def work():
        with deferred_interrupt():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
