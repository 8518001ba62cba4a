"""All of scikit-learn that is not public, or not there in every version that skad runs with.

No other file of skad imports private names of scikit-learn. The oldest version supported is 1.6.1
(``pyproject.toml``). What has a public equivalent in all versions is not listed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sklearn

# Decorates `fit`: validates parameters, unless `skip_parameter_validation` of the config says no.
from sklearn.base import _fit_context

# Take the items of lists, arrays and tables alike; the public `resample` and `shuffle` only draw.
from sklearn.utils import _safe_indexing

# Validate parameters: the language of `_parameter_constraints`, and the function that reads it.
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    Options,
    RealNotInt,
    StrOptions,
    validate_parameter_constraints,
)

# `get_params`, `set_params` and the checks of names for estimators with a list of named members.
from sklearn.utils.metaestimators import _BaseComposition

# The length of lists, arrays and tables alike; `len` fails for what has only a shape.
from sklearn.utils.validation import _num_samples

# A block of the diagram that notebooks show of an estimator with members.
try:
    from sklearn.utils._repr_html.estimator import _VisualBlock
except ImportError:  # scikit-learn < 1.7
    from sklearn.utils._estimator_html_repr import _VisualBlock

# Callbacks: public, but experimental; there are none before 1.9.
try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn < 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in for scikit-learn's mixin."""

    def with_callbacks(method: Callable) -> Callable:
        """Return the method itself."""
        return method


SKLEARN_VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])


def callback_context(estimator: Any, n_subtasks: int) -> Any:
    """Open the context of callbacks of a fit; None if scikit-learn is older than 1.9."""
    if not hasattr(estimator, "_init_callback_context"):
        return None
    return estimator._init_callback_context(max_subtasks=n_subtasks)


__all__ = [
    "SKLEARN_VERSION",
    "CallbackSupportMixin",
    "HasMethods",
    "Interval",
    "Options",
    "RealNotInt",
    "StrOptions",
    "_BaseComposition",
    "_VisualBlock",
    "_fit_context",
    "_num_samples",
    "_safe_indexing",
    "callback_context",
    "validate_parameter_constraints",
    "with_callbacks",
]
