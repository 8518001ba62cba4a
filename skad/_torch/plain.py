"""Whether skad works plainly: as the papers write it, without anything that is there for speed alone."""

from __future__ import annotations

import os


def is_plain_mode() -> bool:
    """Whether the environment variable SKAD_PLAIN asks for the plain path: set, and not to 0.

    Returns
    -------
    bool
    """
    return os.environ.get("SKAD_PLAIN", "0") not in ("", "0")
