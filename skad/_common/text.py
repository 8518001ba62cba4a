"""Users' text in messages and files: shortened, and in characters that can be encoded."""

from __future__ import annotations

import re

# Python reads bytes of file names that are not UTF-8 as these, which no encoding can write.
_FIRST, _LAST = 0xDC80, 0xDCFF
_LONGEST = 200


def readable(text: str) -> str:
    r"""Write bytes of file names that are not UTF-8 as escapes, as in ``caf\xe9.png``.

    Parameters
    ----------
    text : str
        Whatever may hold the name of a file.

    Returns
    -------
    str
        Can be encoded; `text` itself if that can.

    Examples
    --------
    >>> print(readable("caf\udce9.png"))
    caf\xe9.png
    """
    return re.sub("[\ud800-\udfff]", _escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code & 0xFF:02x}" if _FIRST <= code <= _LAST else f"\\u{code:04x}"


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Leave out the middle of a long text: messages must be short, whatever they quote.

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
