"""Features kept on disk, so that the backbone sees every image only once.

One file per image, named by a hash of the pixels the network sees and of everything that turns them
into features; it holds pooled feature maps (`embedding.py`). Files are written under another name and
then renamed, and carry a checksum that knows their own; `tidying.py` removes the ones that were
unused for longest. Several processes may share it: an image that one of them is working on is not sent
through the backbone by another. A store saves time and nothing else: where it cannot be used, features
are computed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from skad._common.memory import parse_bytes
from skad._common.warn import warn_user
from skad._features.claims import Claims
from skad._features.extractor import ARITHMETIC, PatchExtractor
from skad._features.tidying import Tidier
from skad._torch.devices import is_plain_mode

_MAGIC = b"skad-features-3\n"
_CHECKSUM = 16  # bytes
_HEADER = len(_MAGIC) + _CHECKSUM

# Stores of which this process has said that they do not work.
_troubled: set[str] = set()


class FeatureStore:
    """Features of images, kept on disk from one fit to the next.

    Pass it, or the path alone, as ``memory`` of a detector.

    Parameters
    ----------
    path : path-like
        Folder; made when needed. Several detectors, searches and processes may share it.
    max_size : int or str, default="10GB"
        Bytes (or "500MB", "10GB") that the files may take; beyond it, those that were unused for
        longest are removed. The features of one image must have room.
    network : str or None, default=None
        Name under which the features of a network of your own are kept, such as "line3-encoder-v2":
        another one for every network, and for every change of it. Without a name they are not kept,
        since nothing else identifies such a network on every machine. The models of timm need none.

    Notes
    -----
    A file holds every layer at its own resolution: 0.6 MB per image of 224 px with ResNet-18,
    2.4 MB with WideResNet-50. Features are read as they were written, bit by bit, so that scores with
    and without a store are the same. A file that is damaged, of another image or of an older version is
    made again.

    Examples
    --------
    >>> import tempfile
    >>> from skad import FeatureStore, PatchCoreDetector
    >>> store = FeatureStore(tempfile.mkdtemp(), max_size="1GB")
    >>> det = PatchCoreDetector("skad_nano", memory=store)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_size: int | str = "10GB",
        network: str | None = None,
    ) -> None:
        if network is not None and (not isinstance(network, str) or not network):
            raise ValueError(f"network={network!r} must be a name, such as 'line3-encoder-v2'.")
        parse_bytes(max_size, "max_size")
        self.path = os.fsdecode(path)
        self.max_size = max_size
        self.network = network

    def __repr__(self) -> str:
        network = "" if self.network is None else f", network={self.network!r}"
        return f"FeatureStore({self.path!r}, max_size={self.max_size!r}{network})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureStore) and self._parameters() == other._parameters()

    def __hash__(self) -> int:
        return hash(self.path)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Of an older version: a path object, no name, and a number of writes.
        vars(self).update({"network": None, **state})
        vars(self).pop("_n_writes", None)
        self.path = os.fspath(self.path)

    def _parameters(self) -> tuple[str, int | str, str | None]:
        return self.path, self.max_size, self.network

    def _below(self, folder: str | None) -> FeatureStore:
        """Resolve a relative path, from the working folder if from no other."""
        if os.path.isabs(self.path):
            return self
        return FeatureStore(os.path.join(folder or os.getcwd(), self.path), *self._parameters()[1:])

    def _file(self, key: str) -> Path:
        # 256 folders: listings stay short.
        return Path(self.path) / key[:2] / f"{key}.features"

    # ---------------------------------------------------------------- reading

    def _get(self, key: str, n_values: int) -> np.ndarray | None:
        """Read the features of an image.

        Parameters
        ----------
        key : str
        n_values : int
            How many there must be.

        Returns
        -------
        ndarray of shape (n_values,), float32, or None
            None if there is none, or its file is damaged, of another image, or holds a value that is
            not finite.
        """
        file = self._file(key)
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn("read", error)
            return None
        features = _unpack(key, n_values, content)
        if features is not None:
            with contextlib.suppress(OSError):
                os.utime(file)  # "used now"
        return features

    # ---------------------------------------------------------------- writing

    def _put(self, key: str, features: np.ndarray) -> None:
        """Write the features of an image, whole or not at all; a store that cannot be written warns.

        Parameters
        ----------
        key : str
        features : ndarray of shape (n_values,), float32
        """
        file, content = self._file(key), _pack(key, features)
        unfinished = file.with_name(f"{uuid4().hex}.part")
        _tidier(self.path).make_room(len(content), self._limit())
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(content)
            os.replace(unfinished, file)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            self._warn("written", error)

    def _warn(self, what: str, error: OSError) -> None:
        if self.path in _troubled:
            return
        _troubled.add(self.path)
        warn_user(
            f"the feature store {self.path!r} cannot be {what} ({error}): features are computed where "
            "it has none. Give memory another folder, or memory=None."
        )

    def reduce(self) -> None:
        """Remove the files unused for longest until the store is within `max_size`.

        What killed processes have left behind is removed as well.
        """
        _tidier(self.path).reduce(self._limit())

    def _limit(self) -> int:
        return parse_bytes(self.max_size, "max_size")

    # ----------------------------------------------------------------- claims

    def _claim(self, key: str) -> bool:
        """Announce that this process computes an image's features; False if another one already does."""
        claim = self._claim_file(key)
        try:
            claim.parent.mkdir(parents=True, exist_ok=True)
            return _claims(self.path).take(claim)
        except OSError as error:
            self._warn("written", error)
            return True

    def _release(self, key: str) -> None:
        """Take an announcement back, if this thread has made it."""
        _claims(self.path).release(self._claim_file(key))

    def _wait(
        self, key: str, n_values: int, tell: Callable[[str], None] | None = None
    ) -> np.ndarray | None:
        """Wait for what another process has announced; None if it gave up.

        Parameters
        ----------
        key : str
        n_values : int
            How many there must be.
        tell : callable, optional
            Called with a message that says who is waited for, if that takes long.
        """
        _claims(self.path).wait(self._claim_file(key), tell)
        return self._get(key, n_values)

    def _claim_file(self, key: str) -> Path:
        return self._file(key).with_suffix(".claim")


def as_feature_store(memory: Any, folder: str | None = None) -> FeatureStore | None:
    """Make a store of the ``memory`` of a detector.

    Parameters
    ----------
    memory : None, path-like, FeatureStore or joblib.Memory
    folder : str or None
        Folder to which a path is relative; None: the working folder.

    Returns
    -------
    FeatureStore or None
        Its path is absolute.
    """
    if memory is None:
        return None
    if isinstance(memory, FeatureStore):
        return memory._below(folder)
    if hasattr(memory, "location"):  # joblib.Memory; without a location it stores nothing
        if memory.location is None:
            return None
        memory = os.path.join(memory.location, "skad")
    return _at(os.path.join(folder or os.getcwd(), os.fspath(memory)))


def folder_of(memory: Any) -> str | None:
    """Folder to which the path in ``memory`` is relative; None if that is absolute.

    Parameters
    ----------
    memory : None, path-like, FeatureStore or joblib.Memory
    """
    if memory is None or not isinstance(memory, str | os.PathLike | FeatureStore):
        memory = getattr(memory, "location", None)
    path = memory.path if isinstance(memory, FeatureStore) else memory
    return None if path is None or os.path.isabs(path) else os.getcwd()


@lru_cache(maxsize=16)
def _at(path: str) -> FeatureStore:
    return FeatureStore(path)


@lru_cache(maxsize=64)
def _claims(path: str) -> Claims:
    return Claims()


@lru_cache(maxsize=64)
def _tidier(path: str) -> Tidier:
    return Tidier(path, _claims(path))


def _pack(key: str, features: np.ndarray) -> bytes:
    body = np.ascontiguousarray(features, dtype="<f4").tobytes()
    return _MAGIC + _checksum(key, body) + body


def _unpack(key: str, n_values: int, content: bytes) -> np.ndarray | None:
    body = content[_HEADER:]
    if content[:_HEADER] != _MAGIC + _checksum(key, body) or len(body) != 4 * n_values:
        return None
    features = np.frombuffer(body, "<f4")
    return features if np.isfinite(features).all() else None


def _checksum(key: str, body: bytes) -> bytes:
    """Digest a file: of another image, or another length, it is another one."""
    digest = hashlib.blake2b(f"{key} {len(body)}\n".encode(), digest_size=_CHECKSUM)
    digest.update(body)
    return digest.digest()


def _arithmetic() -> object:
    # Without fused convolutions features differ in their last digits.
    return (ARITHMETIC, "plain") if is_plain_mode() else ARITHMETIC


class StoredExtractor:
    """A patch extractor that asks a store first.

    Stands in for :class:`PatchExtractor`: what that answers, this does too.

    Parameters
    ----------
    extractor : PatchExtractor
    store : FeatureStore
    tell : callable, optional
        Called with a message that says who is waited for, if that takes long.

    Raises
    ------
    ValueError
        If the store has no name for a network of the user's own, or no room for one image.
    """

    def __init__(
        self,
        extractor: PatchExtractor,
        store: FeatureStore,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._extractor, self._store, self._tell = extractor, store, tell
        _check_room(store, extractor.n_values)
        spec = extractor.spec
        # The weights are known by their digest; a name may stand for several.
        hardware = (
            extractor.device.type,
            torch.__version__,
            torch.backends.cpu.get_cpu_capability(),
        )
        known_by: tuple[Any, ...] = (
            *(extractor.digest, _arithmetic(), hardware),
            # Without what is off, keys are those of before it was there.
            {n: v for n, v in {**vars(spec), "backbone": None}.items() if n != "normalize" or v},
        )
        self._spec = repr(known_by + _name_of_network(extractor, store))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)

    def key(self, canvas: np.ndarray) -> str:
        """Name an image by what the network sees of it, and how."""
        digest = hashlib.blake2b(self._spec.encode(), digest_size=16)
        digest.update(f"{canvas.shape} {canvas.dtype}".encode())
        digest.update(canvas.tobytes())
        return digest.hexdigest()

    def pool(self, pixels: np.ndarray) -> torch.Tensor:
        """Pooled feature maps of a batch, as :meth:`PatchExtractor.pool` gives them."""
        keys, n_values = [self.key(canvas) for canvas in pixels], self._extractor.n_values
        found = {key: self._store._get(key, n_values) for key in keys}
        absent = [key for key, features in found.items() if features is None]
        try:
            mine = [key for key in absent if self._store._claim(key)]
            self._compute(pixels, keys, mine, found)
        finally:
            for key in absent:  # an interrupt may come before one is known to be mine
                self._store._release(key)
        others = [key for key in absent if key not in set(mine)]
        for key in others:
            found[key] = self._store._wait(key, n_values, self._tell)
        self._compute(pixels, keys, [key for key in others if found[key] is None], found)
        device = self._extractor.device
        return torch.stack([torch.tensor(found[key]) for key in keys]).to(device)

    def embed(self, pixels: np.ndarray) -> torch.Tensor:
        """Patch embeddings of a batch, as :meth:`PatchExtractor.embed` gives them."""
        return torch.cat([self._extractor.join(one) for one in self.pool(pixels).split(1)])

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
        for key, features in zip(wanted, self._extractor.pool(chosen).cpu().numpy(), strict=True):
            self._store._put(key, features)
            found[key] = features


def _name_of_network(extractor: PatchExtractor, store: FeatureStore) -> tuple[str, ...]:
    """Name a network of the user's own, by its user's word and by what can be told of it."""
    if extractor.identity is None:
        return ()
    if store.network is None:
        raise ValueError(
            "memory keeps the features of a network of your own only under a name that you give it, "
            f"since weights alone do not identify it: memory=FeatureStore({store.path!r}, "
            "network='line3-encoder-v2'), another name for every network; or memory=None."
        )
    return (store.network, extractor.identity.configuration)


def _check_room(store: FeatureStore, n_values: int) -> None:
    needed = _HEADER + 4 * n_values
    if store._limit() < needed:
        raise ValueError(
            f"max_size={store.max_size!r} of the feature store {store.path!r} is less than the {needed} "
            "bytes that the features of one image take."
        )
