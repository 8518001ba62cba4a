"""What a search prepares once, at first use, and never pickles."""

from collections.abc import Callable
from typing import Any, TypeVar

from skad._system.forks import ObjectLock

Built = TypeVar("Built")


class Prepared:
    """Objects by key, each built by the first thread that asks for it.

    Examples
    --------
    >>> prepared = Prepared()
    >>> prepared.once("a", lambda: [1]) is prepared.once("a", lambda: [2])
    True
    """

    def __init__(self) -> None:
        self._built: dict[Any, Any] = {}
        self._lock = ObjectLock()

    def once(self, key: Any, build: Callable[[], Built]) -> Built:
        """Return what was built under `key`, which is built now if it is not there.

        Parameters
        ----------
        key : hashable
        build : callable
            Without arguments; it must not ask for another key.

        Returns
        -------
        object
        """
        with self._lock:
            if key not in self._built:
                self._built[key] = build()
            return self._built[key]
