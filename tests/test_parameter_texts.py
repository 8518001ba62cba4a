"""Every parameter of every estimator is described where help() and scikit-learn's HTML look for it."""

import ast
import importlib
import inspect
import re

import pytest
from sklearn.utils import estimator_html_repr
from test_annotations import ESTIMATORS

from skad import PatchCoreDetector
from skad._sklearn_compat import SKLEARN_VERSION

HOMES = ("skad", "skad.features", "skad.preprocessing")
REQUIRED = {
    "DefectClassifier": {"detector": PatchCoreDetector(), "defect_label": "scratched"},
    "ScoreFusionDetector": {"estimators": [("only", PatchCoreDetector())]},
}


@pytest.fixture(params=ESTIMATORS.values())
def estimator(request):
    home = next(h for h in map(importlib.import_module, HOMES) if request.param in dir(h))
    return getattr(home, request.param)(**REQUIRED.get(request.param, {}))


def described(cls):
    """Parameters that the docstring describes, in its order: their types and texts."""
    section = re.split(r"^(.+)\n---+\n", inspect.getdoc(cls), flags=re.MULTILINE)
    text = section[section.index("Parameters") + 1]
    entries = re.findall(r"^(\S+) : (.+)\n((?:(?: .*)?\n)+)", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^\S", text, re.MULTILINE))  # nothing else stands there
    return {name: (type_, words) for name, type_, words in entries}


def test_every_parameter_has_a_text(estimator):
    parameters = inspect.signature(type(estimator)).parameters
    found = described(type(estimator))
    assert list(found) == list(parameters)
    assert [name for name, (_, words) in found.items() if len(words.split()) < 3] == []
    assert [name for name, (_, words) in found.items() if re.match(r"\s+As (in|for) ", words)] == []


def test_defaults_are_those_of_init(estimator):
    for name, (type_, _) in described(type(estimator)).items():
        default = inspect.signature(type(estimator)).parameters[name].default
        _, given, said = type_.partition(", default=")
        assert bool(given) == (default is not inspect.Parameter.empty), name
        assert not given or ast.literal_eval(said) == default, name


@pytest.mark.skipif(SKLEARN_VERSION < (1, 9), reason="texts of parameters since scikit-learn 1.9")
def test_html_tells_what_parameters_mean(estimator):
    page = estimator_html_repr(estimator)
    for name in inspect.signature(type(estimator)).parameters:
        assert re.search(rf"^\s*{name}: .+<br><br>.", page, re.MULTILINE), name
    assert f"modules/generated/skad.{type(estimator).__name__}" not in page
