"""CUDA graphs: kernels that a GPU records once and replays, one launch instead of hundreds.

Starting a small kernel takes the host longer than it runs. A network at batch 1, or a training step on a
few hundred patches, is nothing but starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from skad._system.forks import ObjectLock
from skad._torch.transfers import pinned

Tensors = tuple[torch.Tensor, ...]

# Calls with inputs of a shape that run plainly first: libraries choose their kernels and take their
# workspaces, optimisers make their moments. Shapes that come no more often are not worth recording.
_WARMUP_CALLS = 2
# Shapes that are recorded; each keeps its activations.
_MAX_RECORDINGS = 4


class CUDAGraphed:
    """A function of tensors, replayed from a recording where the device is a GPU.

    Parameters
    ----------
    function : callable
        Maps tensors on the device to a tuple of tensors. It must ask the device nothing (no ``.item()``)
        and keep what it changes in the same memory; what it does in Python happens only while it is
        recorded. Where it cannot be recorded, it is called every time.
    device : torch.device

    Examples
    --------
    >>> double = CUDAGraphed(lambda x: (2 * x,), torch.device("cpu"))
    >>> double(torch.tensor([1.0, 2.0]))
    (tensor([2., 4.]),)
    """

    def __init__(self, function: Callable[..., Tensors], device: torch.device) -> None:
        self._function, self._device = function, device
        self._max_recordings = _MAX_RECORDINGS if device.type == "cuda" else 0
        self._n_calls: dict[Any, int] = {}
        self._recordings: dict[Any, Callable[..., Tensors]] = {}
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None
        # A recording has one set of inputs and outputs.
        self._lock = ObjectLock()

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        """Call the function.

        Parameters
        ----------
        *inputs : torch.Tensor
            On the device, or on the host.

        Returns
        -------
        tuple of torch.Tensor
            The caller's own.
        """
        if self._device.type != "cuda":
            return self._function(*(x.to(self._device) for x in inputs))
        key = (_switches(), *((x.shape, x.dtype) for x in inputs))
        with self._lock, torch.cuda.device(self._device):
            stream, current = self._own_stream(), torch.cuda.current_stream()
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                outputs = self._call(key, tuple(pinned(x) for x in inputs))
            current.wait_stream(stream)
            for output in outputs:
                output.record_stream(current)
            return outputs

    def _call(self, key: Any, inputs: Tensors) -> Tensors:
        self._n_calls[key] = self._n_calls.get(key, 0) + 1
        if key not in self._recordings and self._is_worth_it(key):
            self._try_to_record(key, inputs)
        return self._recordings.get(key, self._plainly)(*inputs)

    def _is_worth_it(self, key: Any) -> bool:
        return self._n_calls[key] > _WARMUP_CALLS and len(self._recordings) < self._max_recordings

    def _try_to_record(self, key: Any, inputs: Tensors) -> None:
        try:
            self._recordings[key] = _Recording(
                self._function, inputs, self._own_stream(), self._pool
            )
        except RuntimeError:
            # It asks the device something, or there is too little memory to keep the activations.
            self._max_recordings = 0

    def _plainly(self, *inputs: torch.Tensor) -> Tensors:
        return self._function(*(x.to(self._device, non_blocking=True) for x in inputs))

    def _own_stream(self) -> torch.cuda.Stream:
        """Stream on which everything is run and recorded, whatever thread calls."""
        if self._stream is None:
            self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        return self._stream


def _switches() -> tuple[bool, bool]:
    """Give torch's own switches that decide which kernels compute."""
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


class _Recording:
    """The kernels of one call, between tensors that stay where they are."""

    def __init__(
        self,
        function: Callable[..., Tensors],
        inputs: Tensors,
        stream: torch.cuda.Stream,
        pool: Any,
    ) -> None:
        # Outside of inference mode, where they could not be written to later.
        with torch.inference_mode(False):
            self._inputs = [torch.empty_like(x, device=stream.device) for x in inputs]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        ):
            self._outputs = function(*self._inputs)

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        # The next replay writes over them.
        return tuple(output.clone() for output in self._outputs)
