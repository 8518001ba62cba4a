"""Results that do not depend on what else is in the batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


class BatchInvariant:
    """A function of a batch that gives every image bitwise what it would get alone, on the CPU.

    Whether a network's kernels round alike in a batch and alone depends on shapes and on the number of
    threads, not on the pixels: it is tried out on the first batch of each size, and images go one by one
    where they don't.

    Parameters
    ----------
    function : callable
        Maps an ndarray of B images to a tensor whose first axis is B.
    device : torch.device
        Where the function computes; only the CPU is held to the promise.
    """

    def __init__(
        self, function: Callable[[np.ndarray], torch.Tensor], device: torch.device
    ) -> None:
        self._function, self._device = function, device
        self._tried: dict[tuple, bool] = {}

    def __call__(self, pixels: np.ndarray) -> torch.Tensor:
        if len(pixels) == 1 or self._device.type != "cpu":
            return self._function(pixels)
        key = (len(pixels), pixels.dtype, torch.get_num_threads())
        if self._tried.get(key, False):
            return self._function(pixels)
        single = torch.cat([self._function(pixels[i : i + 1]) for i in range(len(pixels))])
        if key not in self._tried:
            self._tried[key] = torch.equal(single, self._function(pixels))
        return single
