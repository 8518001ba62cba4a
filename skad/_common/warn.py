"""Warnings that point to the user's own line, however deep inside skad they are given."""

from __future__ import annotations

import sys
import warnings

# scikit-learn wraps `fit`, joblib runs the fits of a search, context managers run in a module of theirs.
_BETWEEN = ("skad", "sklearn", "joblib", "contextlib")


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, at the line that called skad.

    Parameters
    ----------
    message : str
    category : type of Warning, default=UserWarning
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_between(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_between(module: str) -> bool:
    return module.partition(".")[0] in _BETWEEN
