"""Holding the state of an object to what `_declared` says of its class."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

from skad._base import BaseDetector
from skad._common.memory import parse_bytes
from skad._fusion import ScoreFusionDetector
from skad._sklearn_compat import validate_parameter_constraints
from skad.persistence._declared import DECLARED, IMAGE_DETECTORS, PARAMETERS
from skad.persistence._rules import Rule, Table, check, joined, plain, several


def check_object(cls: type, state: dict[str, Any], where: str) -> None:
    """Refuse attributes that an object of a class cannot have.

    Parameters
    ----------
    cls : type
        A key of `DECLARED`.
    state : dict
    where : str
        Its place in the file.

    Raises
    ------
    ValueError
        That names the attribute.
    """
    declared, state = DECLARED[cls], dict(state)
    everything = SimpleNamespace(**state)
    if issubclass(cls, BaseDetector):
        state = {**cls._absent_means, **state}
        given = {name: state.pop(name) for name in parameters(cls) if name in state}
        check(_parameter_table(cls), given, where)
        _check_constraints(cls, given, where)
        if not state:
            return  # not fitted
        everything.fit = _at_fit(cls, given, state.get("_params_at_fit"), where)
    table = dict(declared.always)
    for group in declared.later:
        if not state.keys().isdisjoint(group):
            table |= group
    check(table, state, where)
    for relation in declared.relations:
        if not relation.holds(everything):
            raise ValueError(f"{joined(where, relation.attribute)} must {relation.says}")


def names_of(cls: type) -> frozenset[str]:
    """All attributes that an object of a class may have in a file."""
    declared = DECLARED[cls]
    names = {*declared.always, *(name for group in declared.later for name in group)}
    return frozenset(names | (set(parameters(cls)) if issubclass(cls, BaseDetector) else set()))


def parameters(cls: type) -> tuple[str, ...]:
    """Names of the parameters of a detector."""
    return tuple(name for name in inspect.signature(cls).parameters)


def _parameter_table(cls: type) -> Table:
    return {name: PARAMETERS.get(name, plain()) for name in parameters(cls)}


def _check_constraints(cls: type, given: dict[str, Any], where: str) -> None:
    try:
        validate_parameter_constraints(
            cls._parameter_constraints,  # type: ignore[attr-defined]
            given,
            caller_name=cls.__name__,
        )
        if given.get("max_memory") is not None:
            parse_bytes(given["max_memory"])
    except ValueError as error:
        raise ValueError(f"{where + ': ' if where else ''}{error}") from error


def _at_fit(cls: type, given: dict[str, Any], frozen: Any, where: str) -> SimpleNamespace:
    """Parameters as they were at fit; those that may change afterwards as they are."""
    place = joined(where, "_params_at_fit")
    if not isinstance(frozen, dict):
        raise ValueError(f"{place} must be a mapping of parameters")
    table = {**_parameter_table(cls), **(_FUSED if cls is ScoreFusionDetector else {})}
    check({name: rule for name, rule in table.items() if name in frozen}, frozen, place)
    fit = {**given, **frozen}
    if cls is not ScoreFusionDetector:
        _check_constraints(cls, fit, place)
    return SimpleNamespace(**fit)


# The members themselves remember their parameters.
_FUSED: Table = {
    "estimators": several(
        Rule(
            "a pair of a name and a class",
            lambda value, _: (
                isinstance(value, tuple)
                and len(value) == 2
                and isinstance(value[0], str)
                and value[1] in IMAGE_DETECTORS
            ),
        ),
        1,
        999,
    )
}
