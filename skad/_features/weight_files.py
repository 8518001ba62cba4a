"""Weights of a backbone: found on disk or on the hub, read safely, matched tensor by tensor."""

from __future__ import annotations

import hashlib
import os
import re
import time
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load, load_file

from skad._common.forks import LOADING
from skad._common.text import shortened

# Weights of a backbone inside a saved detector.
BACKBONE_PREFIX = "backbone."
# Normalisation of RGB values in 0..1 that goes with ImageNet weights.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# DenseNet files of torchvision's first generation write `norm.1` where the modules say `norm1`.
_OLD_DENSENET_KEY = re.compile(r"\.(norm|conv)\.([12])\.")
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_PROBE_SECONDS = 5.0
# Bytes that tell what a file is that holds no weights.
_BEGIN = 512

# Seconds: no file system's clock is coarser; and a file that rests so long is not being replaced.
_TICK, _AT_REST = 2.0, 86400.0
_SIGNS = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev")


class _Met(NamedTuple):
    """A file as this process has met it."""

    signs: tuple[object, ...]
    since: float
    content: str
    certain: bool


_met: dict[str, _Met] = {}


# Licences, as timm writes them, under which weights may be used for any purpose.
_FREE = frozenset(
    {"apache-2.0", "bsd-3-clause", "bsd-2-clause", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-3.0"}
)


class MissingWeightsError(FileNotFoundError, ValueError):
    """Weights that are neither on this machine nor to be had: a bad value of a parameter."""


def hub_file(hub_id: str, licence: str | None = None) -> Path:
    """Return the local file of a backbone's weights on the Hugging Face hub; download it if need be.

    Parameters
    ----------
    hub_id : str
        Repository, e.g. ``"timm/wide_resnet50_2.tv_in1k"``.
    licence : str or None, default=None
        Of the weights, as timm states it; named in the error where it is not a free one.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    MissingWeightsError
        If the file is not in the local cache and the hub does not answer. The hub's own client
        retries for most of a minute before it says so; one short request decides here.
    """
    with LOADING:  # the hub's client loads its parts when they are first named
        from huggingface_hub import (
            constants,
            get_session,
            hf_hub_download,
            hf_hub_url,
            try_to_load_from_cache,
        )

    filename = "model.safetensors"
    cached = try_to_load_from_cache(hub_id, filename)
    if isinstance(cached, str):
        return Path(cached)
    url = hf_hub_url(hub_id, filename)
    try:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        get_session().head(url, timeout=_PROBE_SECONDS)
        return Path(hf_hub_download(hub_id, filename))
    except Exception as error:  # every HTTP client has its own hierarchy of errors
        raise MissingWeightsError(_offline_message(hub_id, filename, error, licence)) from error


def content_of(path: str | os.PathLike[str]) -> str:
    """Tell the content of a file from every other, without reading it more often than needed.

    Size and dates cannot tell two contents apart that were written within one tick of the file system's
    clock (two seconds on some), and anyone may set the date of the last change. So a file is read and
    hashed each time in the first two seconds after it is met, by this process's own clock: what is
    written later than that carries another date of its inode, which nobody can set. A file that has not
    been touched for a day when it is met is not read at all.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    str
        Equal for equal contents met under one name.

    Raises
    ------
    MissingWeightsError
        If there is no such file.
    """
    file = _present(path)
    status, now = file.stat(), time.monotonic()
    signs = (*_SIGNS(status), os.path.realpath(file))
    met = _met.get(os.fspath(path))
    if met is None or met.signs != signs:
        at_rest = time.time() - max(status.st_ctime, status.st_mtime) > _AT_REST
        met = _Met(signs, now, repr(signs) if at_rest else "", at_rest)
    if not met.certain:
        met = _Met(signs, met.since, _hashed(file), now - met.since > _TICK)
    _met[os.fspath(path)] = met
    return met.content


def quoted(path: str | os.PathLike[str]) -> str:
    """Quote a path in an error message."""
    return repr(shortened(os.fspath(path)))


def _present(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if not os.fspath(path):
        raise MissingWeightsError("weights='' names no file.")
    try:
        found = file.is_file()
    except OSError:  # a name that is too long, or a folder that may not be read
        found = False
    if not found:
        raise MissingWeightsError(f"weights={quoted(path)}: {_absence(file)}")
    return file


def _absence(file: Path) -> str:
    try:
        file.stat()
    except FileNotFoundError:
        return "there is no such file."
    except (OSError, ValueError) as error:
        return (
            f"there is no such file, or it is out of reach ({getattr(error, 'strerror', error)})."
        )
    return "it is a folder; name a file in it." if file.is_dir() else "it is no regular file."


def _hashed(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ValueError(_unreadable(file, error)) from error
    return digest.hexdigest()


def _offline_message(hub_id: str, filename: str, error: Exception, licence: str | None) -> str:
    with LOADING:
        from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "snapshots"
    return (
        f"The pretrained weights of {hub_id.split('/')[-1]!r} are not on this machine and cannot be "
        f"downloaded ({type(error).__name__}: {shortened(str(error))}). Either use "
        "backbone='skad_nano', whose weights come with skad; or pass "
        f"weights='/path/to/{filename}' (a .safetensors or .pth "
        "file); or run the same call once on a machine that can download: the file then lies at "
        f"{folder / '<revision>' / filename} and can be copied to the same place here, or anywhere "
        "for weights=."
        + (
            ""
            if licence is None or licence.lower() in _FREE
            else f" Mind their licence, {licence!r}, which is not a free one."
        )
    )


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a ``.safetensors``, ``.skad`` or PyTorch file; nothing in it is executed.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict of str to torch.Tensor
        On the CPU.

    Raises
    ------
    MissingWeightsError
        If there is no such file.
    ValueError
        If the file is not what its name says, or holds no tensors.
    """
    file = _present(path)
    try:
        if file.suffix in (".safetensors", ".skad"):
            content = _load_safetensors(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a foreign file makes torch and safetensors raise anything
        raise ValueError(_unreadable(file, error)) from error
    return _tensors(_of_backbone(content, file) if file.suffix == ".skad" else content, file)


def _load_safetensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        os.fspath(file).encode()
    except UnicodeEncodeError:
        return load(file.read_bytes())  # torch opens no file whose name is not UTF-8
    return load_file(file)


def _of_backbone(tensors: dict[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    """Pick the weights of the backbone out of a saved detector."""
    found = {
        name.removeprefix(BACKBONE_PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith(BACKBONE_PREFIX)
    }
    if not found:
        raise ValueError(
            f"weights={quoted(file)} holds no backbone: save the detector with "
            "skad.save(det, path, include_backbone=True)."
        )
    return found


def _unreadable(file: Path, error: Exception) -> str:
    # What torch says of foreign files tells nothing, or advises to execute what they hold.
    if isinstance(error, OSError) and error.errno is not None:
        reason = f"{type(error).__name__}: {error.strerror}"
    else:
        reason = _looks_like(file)
    return (
        f"weights={quoted(file)} cannot be read as weights: {reason}. "
        "It must be a .safetensors file, or a .pth/.pt state dict of tensors alone."
    )


def _looks_like(file: Path) -> str:
    with file.open("rb") as stream:
        begin = stream.read(_BEGIN).lstrip().lower()
    if begin.startswith(b"version https://git-lfs"):
        return "it is a pointer of git LFS, not the file itself: run git lfs pull"
    if begin.startswith((b"<!doctype", b"<html")):
        return "it is a web page: download the file itself"
    if not begin:
        return "it is empty"
    return "it is no file of weights, is incomplete, or holds more than tensors"


def _tensors(content: object, file: Path) -> dict[str, torch.Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {}
    if isinstance(content, dict):
        tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise ValueError(f"weights={quoted(file)} holds no tensors: expected a state dict.")
    return {str(key).removeprefix("module."): value for key, value in tensors.items()}


def load_weights(model: torch.nn.Module, state_dict: dict[str, torch.Tensor], origin: str) -> None:
    """Copy into `model` every tensor it needs; what it does not need may be absent or left over.

    timm's feature extractors rename modules (``features.norm0`` becomes ``features_norm0``), so
    names are compared with dots and underscores taken as equal.

    Parameters
    ----------
    model : torch.nn.Module
        Truncated after the last layer in use, so that a partial file suffices.
    state_dict : dict of str to torch.Tensor
    origin : str
        Where the tensors come from, for the error message.

    Raises
    ------
    ValueError
        If a needed tensor is missing, has another shape, or holds what a network cannot compute with;
        the message names it.
    """
    given = {_plain(key): value for key, value in state_dict.items()}
    needed = {
        key: tensor
        for key, tensor in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    missing = [key for key in needed if _plain(key) not in given]
    if missing:
        raise ValueError(
            f"{origin} lacks {len(missing)} of the {len(needed)} tensors that the backbone needs up "
            f"to its last layer: {_some(missing)}. Is it the file of another network?"
        )
    misfits = [
        f"{key} {tuple(given[_plain(key)].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in needed.items()
        if given[_plain(key)].shape != tensor.shape
    ]
    if misfits:
        raise ValueError(f"{origin} holds tensors of other shapes: {_some(misfits)}.")
    faults = [
        f"{key} ({fault})"
        for key, tensor in needed.items()
        if (fault := _fault(key, given[_plain(key)], tensor.dtype))
    ]
    if faults:
        raise ValueError(
            f"{origin} holds tensors that no trained network has: {_some(faults)}. Save it again as "
            "plain floats, or take another file."
        )
    model.load_state_dict({key: given[_plain(key)] for key in needed}, strict=False)


def _fault(key: str, tensor: torch.Tensor, dtype: torch.dtype) -> str:
    """Say why a network cannot compute with a tensor; nothing if it can."""
    if tensor.is_meta:
        return "without numbers, on the device meta"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_quantized:
        return "quantised"
    if not dtype.is_floating_point:
        return ""
    if not tensor.is_floating_point():
        return f"{str(tensor.dtype).removeprefix('torch.')} instead of floats"
    values = tensor.to(dtype)  # where a large number may become infinite
    if not bool(values.isfinite().all()):
        return "NaN or infinite"
    if key.endswith("running_var") and bool((values < 0).any()):
        return "a negative variance"
    return ""


def _plain(key: str) -> str:
    return _OLD_DENSENET_KEY.sub(r".\1\2.", key).replace(".", "_")


def _some(items: list[str], shown: int = 5) -> str:
    text = ", ".join(items[:shown])
    return text if len(items) <= shown else f"{text} and {len(items) - shown} more"


def weights_digest(model: torch.nn.Module) -> str:
    """Fingerprint of every tensor of a network, to recognise it again on another machine.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    str
        32 hexadecimal digits (BLAKE2b over names, shapes, dtypes and bytes).
    """
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in sorted(model.state_dict().items()):
        # A module may also save what is no tensor.
        if key.endswith("num_batches_tracked") or not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(content)  # type: ignore[arg-type]
    return digest.hexdigest()
