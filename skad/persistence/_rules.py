"""What a value in a file may be: small rules, from which the tables of `_declared` are made."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

# Beyond all that is counted, and exact as a float.
_LARGEST_INTEGER = 2**53
# Features and weights are far below; squares of such numbers, and sums of them, are still float32.
_LARGEST_NUMBER = 1e15


class Rule(NamedTuple):
    """What a value must be."""

    says: str
    """Ends the sentence "this must be ..."."""
    holds: Callable[[Any, dict[str, int]], bool]
    """Told the value, and the lengths that letters stand for, which it adds to."""


Table = Mapping[str, "Rule | Table"]


def check(table: Table, state: Any, where: str, lengths: dict[str, int] | None = None) -> None:
    """Refuse a state that is not what a table declares.

    Parameters
    ----------
    table : mapping of str to Rule or table
    state : dict
        Has these names, and no other.
    where : str
        Its place in the file, for the error.
    lengths : dict of str to int, default=None
        Of axes, by the letters that the rules of arrays give them.

    Raises
    ------
    ValueError
        That names the attribute.
    """
    lengths = {} if lengths is None else lengths
    if not isinstance(state, dict):
        raise ValueError(f"{where or 'it'} must be a mapping; it is {shown(state)}")
    for name in state.keys() - table.keys():
        raise ValueError(f"{joined(where, name)} is no attribute that it may have")
    for name, rule in table.items():
        place = joined(where, name)
        if name not in state:
            raise ValueError(f"{place} is missing")
        if not isinstance(rule, Rule):
            check(rule, state[name], place, lengths)
        elif not rule.holds(state[name], lengths):
            raise ValueError(f"{place} must be {rule.says}; it is {shown(state[name])}")


def joined(where: str, name: str) -> str:
    """Place of an attribute."""
    return f"{where}.{name}" if where else name


def shown(value: Any) -> str:
    """Describe a value in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {value.shape}"
    # Content of strangers may be deep and long.
    return reprlib.repr(value)


def integer(low: int = 0, high: int = _LARGEST_INTEGER) -> Rule:
    """Ask for a whole number; True and False are none."""
    bound = "" if high == _LARGEST_INTEGER else f" and at most {high}"
    return Rule(
        f"a whole number, at least {low}{bound}",
        lambda value, _: type(value) is int and low <= value <= high,
    )


def number(
    low: float = -_LARGEST_NUMBER, high: float = _LARGEST_NUMBER, above: bool = False
) -> Rule:
    """Ask for a number, which NaN is not; `above`: and not for `low` itself."""

    def holds(value: Any, _: dict[str, int]) -> bool:
        return type(value) in (int, float) and low <= value <= high and not (above and value == low)

    return Rule(f"a number from {low:g}{' (excluded)' if above else ''} to {high:g}", holds)


def text() -> Rule:
    """Ask for a text, which may also be the name of a file."""
    return Rule("a text", lambda value, _: isinstance(value, str) and "\0" not in value)


def flag() -> Rule:
    """Ask for True or False."""
    return Rule("True or False", lambda value, _: isinstance(value, bool))


def or_auto(rule: Rule) -> Rule:
    """Ask for what a rule says, or "auto"."""
    return Rule(
        f'"auto" or {rule.says}',
        lambda value, lengths: (
            value == "auto" if isinstance(value, str) else rule.holds(value, lengths)
        ),
    )


def nothing() -> Rule:
    """Ask for None, since such a thing never comes from a file."""
    return Rule("None in a file", lambda value, _: value is None)


def plain() -> Rule:
    """Ask for what most parameters are."""

    def holds(value: Any, _: dict[str, int]) -> bool:
        if value is None or isinstance(value, bool):
            return True
        return any(rule.holds(value, {}) for rule in (integer(-_LARGEST_INTEGER), number(), text()))

    return Rule("a number, a text, True, False or None", holds)


def optional(rule: Rule) -> Rule:
    """Ask for what a rule says, or None."""
    return Rule(
        f"{rule.says}; or None", lambda value, lengths: value is None or rule.holds(value, lengths)
    )


def either(one: Rule, other: Rule) -> Rule:
    """Ask for what one of two rules says."""
    return Rule(
        f"{one.says}; or {other.says}",
        lambda value, lengths: one.holds(value, lengths) or other.holds(value, lengths),
    )


def instance(*classes: type) -> Rule:
    """Ask for an object of one of these very classes."""
    return Rule(
        " or ".join(cls.__name__ for cls in classes), lambda value, _: type(value) in classes
    )


def several(
    rule: Rule, low: int = 1, high: int = 64, kinds: tuple[type, ...] = (list, tuple)
) -> Rule:
    """Ask for a list or tuple of what a rule says."""

    def holds(value: Any, lengths: dict[str, int]) -> bool:
        if type(value) not in kinds or not low <= len(value) <= high:
            return False
        return all(rule.holds(item, lengths) for item in value)

    return Rule(f"a sequence of {low} to {high} values, each {rule.says}", holds)


def integers(low: int, high: int) -> Rule:
    """Ask for a list, tuple or array of whole numbers, as parameters hold them."""
    listed = several(integer(low, high))

    def holds(value: Any, lengths: dict[str, int]) -> bool:
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.ndim == 1:
            value = value.tolist()
        return listed.holds(value, lengths)

    return Rule(listed.says, holds)


def array(
    dtype: str,
    *axes: str,
    low: float = -math.inf,
    finite: bool = True,
    ascending: bool = False,
) -> Rule:
    """Ask for an array; a letter that names an axis stands for one length everywhere in an object."""
    says = f"an array of {dtype} of shape ({', '.join(axes)})"
    says += f", of size {_LARGEST_NUMBER:g} at most" if finite else ""
    says += f", {low:g} at least" if math.isfinite(low) else ""
    says += ", ascending" if ascending else ""

    def holds(value: Any, lengths: dict[str, int]) -> bool:
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != len(axes):
            return False
        if any(lengths.setdefault(a, n) != n for a, n in zip(axes, value.shape, strict=True)):
            return False
        if finite and not is_bounded(value):
            return False
        if math.isfinite(low) and not (value >= low).all():
            return False
        return not ascending or bool((value[1:] >= value[:-1]).all())

    return Rule(says, holds)


def floats(n_axes: int) -> Rule:
    """Ask for a finite float32 array of so many axes, of any lengths."""
    return Rule(
        f"an array of float32 with {n_axes} axes, of size {_LARGEST_NUMBER:g} at most",
        lambda value, _: (
            isinstance(value, np.ndarray)
            and value.dtype == np.float32
            and value.ndim == n_axes
            and is_bounded(value)
        ),
    )


def squares(dtype: str) -> Rule:
    """Ask for a finite matrix that is symmetric."""
    return Rule(
        f"a symmetric array of {dtype}, of size {_LARGEST_NUMBER:g} at most",
        lambda value, _: (
            isinstance(value, np.ndarray)
            and value.dtype == dtype
            and value.ndim == 2
            and value.shape[0] == value.shape[1]
            and is_bounded(value)
            and np.array_equal(value, value.T)
        ),
    )


def is_bounded(array: np.ndarray) -> bool:
    """Whether all numbers of an array are such as occur."""
    # Without a copy, since a bank may be large; NaN compares as False.
    return array.size == 0 or bool(
        array.min() >= -_LARGEST_NUMBER and array.max() <= _LARGEST_NUMBER
    )


def texts() -> Rule:
    """Ask for an array of texts."""
    return Rule(
        "an array of texts",
        lambda value, _: (
            isinstance(value, np.ndarray)
            and value.dtype == object
            and all(isinstance(item, str) for item in value)
        ),
    )


def arrays(*dtypes: str) -> Rule:
    """Ask for a dict of finite arrays."""
    return Rule(
        f"a mapping of texts to arrays of {' or '.join(dtypes)}, of size {_LARGEST_NUMBER:g} at most",
        lambda value, _: (
            isinstance(value, dict)
            and all(
                isinstance(item, np.ndarray) and str(item.dtype) in dtypes and is_bounded(item)
                for item in value.values()
            )
        ),
    )
