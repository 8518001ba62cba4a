"""What users may take for images, and is neither an image nor a table: named, with the remedy.

scikit-learn would refuse most of it with errors about tables. Nothing here is read or decoded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skad._common.text import shortened

from .items import is_array, is_encoded, is_file, is_path, is_tensor, type_name

# PNG, JPEG, GIF, TIFF of both byte orders, WebP, JPEG 2000 as a file and as a stream.
_SIGNATURES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"RIFF"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
)


def problem_of(item: Any) -> str | None:
    """Say what an item without pixels is, and what to pass instead.

    Parameters
    ----------
    item : object

    Returns
    -------
    str or None
        None for an image, and for what is not known here.
    """
    problem = _lookalike(item)
    if problem is not None:
        what, wanted = problem
        return f"is {what}: pass {wanted.format('image')} in its place"
    if hasattr(item, "keys") and not is_array(item):
        keys = _names(item)
        return f"is a {type_name(item)} with {keys}: pass the images alone, [row[...] for row in X]"
    return None


def refuse_strangers(X: Any) -> None:
    """Refuse an X whose images cannot be read from it, or that is one such object itself.

    Parameters
    ----------
    X : object
        Whatever the user passed.

    Raises
    ------
    TypeError
        With the remedy.
    """
    dtype = X.dtype if isinstance(X, np.ndarray) else None
    if dtype is not None and dtype.kind == "S":
        raise TypeError(
            f"X is an array of bytes ({dtype}), which drops zeros at their ends: pass a "
            "list of bytes, or of paths, [os.fsdecode(path) for path in X]."
        )
    if dtype is not None and dtype.names:
        names = shortened(", ".join(map(repr, dtype.names)), 60)
        raise TypeError(
            f"X is a structured array with the fields {names}: pass the one that holds images, such as "
            f"list(X[{shortened(repr(dtype.names[0]), 60)}])."
        )
    problem = _lookalike(X)
    if problem is not None:
        what, wanted = problem
        raise TypeError(f"X is {what}: pass {wanted.format('X')} in a list.")
    if hasattr(X, "keys") and not any(hasattr(X, name) for name in ("shape", "__array__")):
        raise TypeError(
            f"X is a {type_name(X)} with {_names(X)}: pass the images in it, such as list(X.values()), "
            "or one of its entries."
        )
    if callable(getattr(X, "collect", None)) and not hasattr(X, "__len__"):
        raise TypeError(f"X is a {type_name(X)}, which is not computed yet: pass X.collect().")


def is_missing(item: Any) -> bool:
    """Whether a cell of a table is empty: None, NaN or pandas.NA."""
    is_nan = isinstance(item, float) and item != item
    # By name: pandas may not be there.
    return item is None or is_nan or type(item).__name__ in ("NAType", "NaTType")


def _lookalike(item: Any) -> tuple[str, str] | None:
    """Say what an item is, and which expression makes an image of it."""
    if is_path(item) or is_encoded(item):
        return None
    if isinstance(item, np.void) and item.dtype.names is None:
        return "of NumPy's type void", "its bytes, {}.tobytes(),"
    if _is_encoded_array(item):
        wanted = "{}.numpy().tobytes()" if is_tensor(item) else "{}.tobytes()"
        return "the content of an image file in an array of bytes", f"its bytes, {wanted},"
    if is_array(item):
        return None
    if is_file(getattr(item, "file", None)):
        return f"an upload ({type_name(item)})", "its open file, {}.file,"
    if callable(getattr(item, "read_bytes", None)) and callable(getattr(item, "open", None)):
        return f"a path inside of an archive ({type_name(item)})", "its content, {}.read_bytes(),"
    return None


def _is_encoded_array(item: Any) -> bool:
    """Whether an array of one dimension, or one column, begins as files of images do."""
    if not (isinstance(item, np.ndarray) or is_tensor(item)):
        return False
    shape = tuple(item.shape)
    if str(item.dtype) not in ("uint8", "torch.uint8") or len(shape) not in (1, 2):
        return False
    if shape[1:] not in ((), (1,)):
        return False
    head = bytes(item[:16].reshape(-1).tolist())
    is_bmp = head[:2] == b"BM" and int.from_bytes(head[2:6], "little") == shape[0]
    return is_bmp or head.startswith(_SIGNATURES)


def _names(item: Any) -> str:
    return shortened(", ".join(repr(key) for key in list(item.keys())[:9]), 60) or "nothing in it"
