"""A store of features on disk: the backbone sees an image once, whoever asks.

One file an image, named by a hash of the pixels the network sees and of everything that turns them
into features: the cells of `embedding.py`. Files are written under another name and then renamed, carry
a checksum, and the ones that were not asked for longest are removed when the store grows too large.
Several processes may share it: an image that one of them is working on is not sent through the backbone
by another.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from skad._features.extractor import ARITHMETIC, PatchExtractor
from skad._memory import parse_bytes

_MAGIC = b"skad-features-2\n"
_CHECKSUM = 16  # bytes
# A claim that is older belongs to a process that was killed.
_STALE_SECONDS = 120.0
_POLL_SECONDS = 0.005
# Writes between two looks at the size of the store, which cost a listing of all files.
_LOOK_EVERY = 64


class FeatureStore:
    """Features of images, kept on disk from one fit to the next.

    Pass it, or the path alone, as ``memory`` of a detector.

    Parameters
    ----------
    path : path-like
        Folder; made when needed. Several detectors, searches and processes may share it.
    max_size : int or str, default="10GB"
        Bytes (or "500MB", "10GB") that the files may take; beyond it, those that were not asked for
        longest are removed.

    Notes
    -----
    A file holds every level at its own resolution: 0.6 MB an image of 224 px with ResNet-18, 2.4 MB with
    WideResNet-50. Features are read as they were written, bit by bit, so that scores with and without
    a store are the same. A damaged file is made again.

    Examples
    --------
    >>> import tempfile
    >>> from skad import FeatureStore, PatchCoreDetector
    >>> store = FeatureStore(tempfile.mkdtemp(), max_size="1GB")
    >>> det = PatchCoreDetector("skad_nano", memory=store)
    """

    def __init__(self, path: str | os.PathLike[str], max_size: int | str = "10GB") -> None:
        self.path = path
        self.max_size = max_size
        self._n_writes = 0
        parse_bytes(max_size)

    def __repr__(self) -> str:
        return f"FeatureStore({os.fspath(self.path)!r}, max_size={self.max_size!r})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, FeatureStore)
            and os.fspath(self.path) == os.fspath(other.path)
            and self.max_size == other.max_size
        )

    def __hash__(self) -> int:
        return hash(os.fspath(self.path))

    def _file(self, key: str) -> Path:
        # 256 folders: listings stay short.
        return Path(self.path) / key[:2] / f"{key}.features"

    # ---------------------------------------------------------------- reading

    def get(self, key: str) -> np.ndarray | None:
        """Read the features of an image.

        Parameters
        ----------
        key : str

        Returns
        -------
        ndarray of shape (n_values,), float32, or None
            None if there is none, or its file is damaged.
        """
        file = self._file(key)
        try:
            content = file.read_bytes()
        except OSError:
            return None
        features = _unpack(content)
        if features is not None:
            with contextlib.suppress(OSError):
                os.utime(file)  # "asked for now"
        return features

    # ---------------------------------------------------------------- writing

    def put(self, key: str, features: np.ndarray) -> None:
        """Write the features of an image; whole or not at all.

        Parameters
        ----------
        key : str
        features : ndarray of shape (n_values,), float32
        """
        file = self._file(key)
        unfinished = file.with_name(f"{uuid4().hex}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(_pack(features))
            os.replace(unfinished, file)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise self._unwritable(error) from error
        self._n_writes += 1
        if self._n_writes % _LOOK_EVERY == 1:
            self.reduce()

    def _unwritable(self, error: OSError) -> OSError:
        return OSError(
            f"the feature store {os.fspath(self.path)!r} cannot be written ({error}); give memory "
            "another folder, or memory=None."
        )

    def reduce(self) -> None:
        """Remove what was not asked for longest until the store is as small as it must be.

        What killed processes have left behind goes as well.
        """
        limit, total = parse_bytes(self.max_size), 0
        for _, size, file in sorted(self._listing(), reverse=True):
            total += size
            if total > limit:
                with contextlib.suppress(OSError):  # another process was faster
                    file.unlink()

        for remains in (*Path(self.path).glob("??/*.part"), *Path(self.path).glob("??/*.claim")):
            with contextlib.suppress(OSError):
                if _age(remains) > _STALE_SECONDS:
                    remains.unlink()

    def _listing(self) -> list[tuple[float, int, Path]]:
        found = []
        for file in Path(self.path).glob("??/*.features"):
            with contextlib.suppress(OSError):
                status = file.stat()
                found.append((status.st_mtime, status.st_size, file))
        return found

    # ----------------------------------------------------------------- claims

    def claim(self, key: str) -> bool:
        """Announce that this process computes an image's features; False if another one already does."""
        claim = self._file(key).with_suffix(".claim")
        try:
            claim.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
        except OSError as error:
            if not isinstance(error, FileExistsError) or not claim.parent.is_dir():
                raise self._unwritable(error) from error
            with contextlib.suppress(OSError):
                if _age(claim) > _STALE_SECONDS:
                    os.utime(claim)
                    return True
            return False
        return True

    def release(self, key: str) -> None:
        """Take an announcement back."""
        with contextlib.suppress(OSError):
            self._file(key).with_suffix(".claim").unlink()

    def wait(self, key: str) -> np.ndarray | None:
        """Wait for what another process has announced; None if it gave up."""
        claim = self._file(key).with_suffix(".claim")
        with contextlib.suppress(OSError):  # the claim is gone
            while _age(claim) < _STALE_SECONDS:
                time.sleep(_POLL_SECONDS)
        return self.get(key)


def as_feature_store(memory: Any) -> FeatureStore | None:
    """Take the ``memory`` of a detector for what it is.

    Parameters
    ----------
    memory : None, path-like, FeatureStore or joblib.Memory

    Returns
    -------
    FeatureStore or None
    """
    if memory is None or isinstance(memory, FeatureStore):
        return memory
    if hasattr(memory, "location"):  # joblib.Memory; without a location it stores nothing
        return None if memory.location is None else _at(str(Path(memory.location) / "skad"))
    return _at(os.fspath(memory))


@lru_cache(maxsize=16)
def _at(path: str) -> FeatureStore:
    return FeatureStore(path)


def _age(file: Path) -> float:
    return time.time() - file.stat().st_mtime


def _pack(features: np.ndarray) -> bytes:
    body = np.ascontiguousarray(features, dtype="<f4").tobytes()
    return _MAGIC + hashlib.blake2b(body, digest_size=_CHECKSUM).digest() + body


def _unpack(content: bytes) -> np.ndarray | None:
    start = len(_MAGIC) + _CHECKSUM
    body = content[start:]
    sound = (
        content.startswith(_MAGIC)
        and hashlib.blake2b(body, digest_size=_CHECKSUM).digest() == content[len(_MAGIC) : start]
    )
    return np.frombuffer(body, "<f4") if sound else None


class StoredExtractor:
    """A patch extractor that asks a store first.

    Stands in for :class:`PatchExtractor`: what that answers, this does too.

    Parameters
    ----------
    extractor : PatchExtractor
    store : FeatureStore
    """

    def __init__(self, extractor: PatchExtractor, store: FeatureStore) -> None:
        self._extractor, self._store = extractor, store
        spec = extractor.spec
        # The weights are known by their digest; a name may stand for several.
        hardware = (
            extractor.device.type,
            torch.__version__,
            torch.backends.cpu.get_cpu_capability(),
        )
        self._spec = repr(
            (extractor.digest, ARITHMETIC, hardware, {**vars(spec), "backbone": None})
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)

    def key(self, canvas: np.ndarray) -> str:
        """Name an image by what the network sees of it, and how."""
        digest = hashlib.blake2b(self._spec.encode(), digest_size=16)
        digest.update(f"{canvas.shape} {canvas.dtype}".encode())
        digest.update(canvas.tobytes())
        return digest.hexdigest()

    def cells(self, pixels: np.ndarray) -> torch.Tensor:
        """Pooled features of a batch, as :meth:`PatchExtractor.cells` gives them."""
        keys = [self.key(canvas) for canvas in pixels]
        found: dict[str, np.ndarray | None] = {key: self._store.get(key) for key in keys}
        absent = [key for key, features in found.items() if features is None]
        mine = [key for key in absent if self._store.claim(key)]
        try:
            self._compute(pixels, keys, mine, found)
        finally:
            for key in mine:
                self._store.release(key)
        others = [key for key in absent if key not in set(mine)]
        for key in others:
            found[key] = self._store.wait(key)
        self._compute(pixels, keys, [key for key in others if found[key] is None], found)
        device = self._extractor.device
        return torch.stack([torch.tensor(found[key]) for key in keys]).to(device)

    def embed(self, pixels: np.ndarray) -> torch.Tensor:
        """Patch embeddings of a batch, as :meth:`PatchExtractor.embed` gives them."""
        return torch.stack(list(self._extractor.join_each(self.cells(pixels))))

    def _compute(
        self,
        pixels: np.ndarray,
        keys: list[str],
        wanted: list[str],
        found: dict[str, np.ndarray | None],
    ) -> None:
        """Compute the features of some images of a batch, and store them."""
        if not wanted:
            return
        chosen = pixels[[keys.index(key) for key in wanted]]
        for key, features in zip(wanted, self._extractor.cells(chosen).cpu().numpy(), strict=True):
            self._store.put(key, features)
            found[key] = features
