"""Every decision about the device and the numerical precision of the networks.

Nothing else in skad asks what hardware there is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from skad._common.text import shortened

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_device(device: str) -> torch.device:
    """Turn the ``device`` parameter of a detector into a torch device that exists here.

    Parameters
    ----------
    device : str
        ``"auto"`` (CUDA if there is one, else the CPU) or any name torch knows: ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``, ``"mps"``.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If torch does not know the name or the device is not available on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={shortened(repr(device))} is not a torch device; use 'auto', 'cpu', 'cuda' or "
            "'cuda:<number>'."
        ) from error
    available: dict[str, Callable[[], bool]] = {
        "cpu": lambda: True,
        "cuda": lambda: (resolved.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available,
    }
    if not available.get(resolved.type, lambda: False)():
        raise ValueError(
            f"device={shortened(repr(device))} is not available on this machine; use device='auto' "
            "or 'cpu' (set_params(device='cpu') also works on a fitted detector)."
        )
    return resolved


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context in which the backbone runs: plain float32, or bfloat16 matrix products.

    bfloat16 is never chosen silently: a detector fitted on one machine would score differently
    on another.
    """
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16)


def exact_convolutions(device: torch.device) -> AbstractContextManager[None]:
    """Context without the shortened products (TF32) that a GPU convolves with otherwise."""
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    return cudnn.flags(cudnn.enabled, cudnn.benchmark, deterministic=True, allow_tf32=False)


def upcast(x: torch.Tensor) -> torch.Tensor:
    """Bring bfloat16, which is too coarse for sums over many values, to float32."""
    return x.float() if x.dtype == torch.bfloat16 else x


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Type that convolutions take in the surrounding `autocast`; None outside of it."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if enabled else None


def fuses_convolutions(device: torch.device) -> bool:
    """Whether one kernel convolves, adds and takes a ReLU: cuDNN's."""
    return device.type == "cuda" and torch.version.hip is None and torch.backends.cudnn.enabled


def has_fast_halves(device: torch.device) -> bool:
    """Whether products in half precision cost much less than in float32; on a CPU they cost more.

    False where torch was told to add them up in half precision as well: too few digits remain.
    """
    adds_in_halves = getattr(torch.backends.cuda.matmul, "allow_fp16_accumulation", False)
    return device.type == "cuda" and not adds_in_halves


def training_precision(device: torch.device, precision: str) -> str:
    """Resolve the precision that a network is trained in.

    Parameters
    ----------
    device : torch.device
    precision : {"auto", "float32", "bfloat16"}
        "auto": bfloat16 where the hardware has units for it, about twice as fast.

    Returns
    -------
    str
        A key of `PRECISIONS`.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if _has_bfloat16_units(device) else "float32"


def _has_bfloat16_units(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    # torch has no public question for this; without an answer, float32 is right everywhere.
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, q, lambda: False)() for q in questions)


def has_room(device: torch.device, n_bytes: int) -> bool:
    """Whether data may move to a device as a whole, leaving as much again for the work on them.

    Parameters
    ----------
    device : torch.device
    n_bytes : int

    Returns
    -------
    bool
        True for the CPU, where the data are already; False where the free memory is unknown.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return 2 * n_bytes <= free
    return device.type == "cpu"


def is_plain_mode() -> bool:
    """Whether the environment variable SKAD_PLAIN asks for the plain path: set, and not to 0.

    Returns
    -------
    bool
    """
    return os.environ.get("SKAD_PLAIN", "0") not in ("", "0")
