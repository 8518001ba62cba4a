"""Quotations in error messages: what users hold may be long, messages must not be."""

from __future__ import annotations

_LONGEST = 200


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Leave out the middle of a long text.

    Parameters
    ----------
    text : str
    longest : int, default=200
        Number of characters.

    Returns
    -------
    str
        Begin and end of the text: of a path, both tell something.
    """
    if len(text) <= longest:
        return text
    kept = (longest - 5) // 2
    return f"{text[:kept]} ... {text[-kept:]}"
