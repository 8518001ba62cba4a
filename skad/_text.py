"""Names of files as text that any encoding can hold."""

from __future__ import annotations

import re

# Python reads bytes of file names that are not UTF-8 as these, which no encoding can write.
_FIRST, _LAST = 0xDC80, 0xDCFF


def readable(text: str) -> str:
    r"""Write bytes of file names that are no UTF-8 as escapes, as in ``caf\xe9.png``.

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
