"""Tables of numbers: which detectors take them, and the warning about rows without a shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from skad._common.text import shortened
from skad.exceptions import TabularDataWarning

from .notes import say

_LONGEST_MESSAGE = 1000


def refuse_other_kind(rows: bool) -> None:
    """Refuse rows if the detector was fitted on images, and images if it was fitted on rows.

    Only without ``image_shape``: with it, rows are images in another form.

    Parameters
    ----------
    rows : bool
        Whether X is a table.

    Raises
    ------
    ValueError
        With the remedy.
    """
    if rows:
        raise ValueError(
            "X is a table of numbers, but this detector was fitted on images. Wrap one grey image in a "
            "list, [X]; if each row is a flattened image, fit a detector that has image_shape=(H, W) "
            "or (H, W, C)."
        )
    raise ValueError(
        "X holds images, but this detector was fitted on a table of numbers, whose rows are "
        "shown as grey strips, one pixel high. Fit it on images, or on flattened ones with "
        "image_shape=(H, W) or (H, W, C)."
    )


def warn_of_rows() -> None:
    """Warn that rows without a shape are shown as strips."""
    say(
        "rows",
        "X is a table of numbers: each row is shown as a grey strip, one pixel high. If rows are "
        "flattened images, pass image_shape=(H, W) or (H, W, C); one grey image is passed in a list, "
        "[X].",
        TabularDataWarning,
    )


@contextmanager
def short_errors() -> Iterator[None]:
    """Shorten error messages that quote long values of the user's."""
    try:
        yield
    except (TypeError, ValueError) as error:
        text = str(error)
        if len(text) <= _LONGEST_MESSAGE:
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(shortened(text, _LONGEST_MESSAGE)) from None
