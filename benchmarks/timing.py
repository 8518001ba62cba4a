"""Clocks that wait for the device, and the speed of a machine's products and copies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")


def timed(function: Callable[[], Result], device: str = "cpu") -> tuple[float, Result]:
    """Seconds that a call takes until the device has done all of it, and the result."""
    synchronise(device)
    start = time.perf_counter()
    result = function()
    synchronise(device)
    return time.perf_counter() - start, result


def synchronise(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def name_of(device: str) -> str:
    """Put the device in words, for the head of a table."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device}, {torch.get_num_threads()} threads"


@cache
def product_rate(device: str = "cpu") -> float:
    """Floating-point operations per second of a large float32 product."""
    size = 2048 if device == "cpu" else 8192
    a, b = torch.rand(2, size, size, device=device)
    times = [timed(lambda: a @ b, device)[0] for _ in range(11)]
    return 2 * size**3 / statistics.median(times[2:])


@cache
def reading_rate(device: str = "cpu") -> float:
    """Bytes per second that a sum reads of an array that fits no cache."""
    values = torch.ones(1 << 26, device=device)
    times = [timed(values.sum, device)[0] for _ in range(7)]
    return values.numel() * values.element_size() / statistics.median(times[2:])
