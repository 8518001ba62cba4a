"""Every function of the package is annotated in full, but for what scikit-learn leaves open."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "skad"
# The parameters of estimators have no annotations: _parameter_constraints says what they may be.
ESTIMATORS = {
    "_classifier.py": "DefectClassifier",
    "_embedder.py": "PatchEmbedder",
    "_fusion.py": "ScoreFusionDetector",
    "_patchcore.py": "PatchCoreDetector",
    "_reconpatch.py": "ReConPatchDetector",
    "_register.py": "Register",
    "_dinomaly.py": "DinomalyDetector",
    "_padim.py": "PaDiMDetector",
    "_spade.py": "SPADEDetector",
    "_recontrast.py": "ReContrastDetector",
}


def functions(node, owner=""):
    """All functions below a node, each with the name of what it is in: (owner, function)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield owner, child
        yield from functions(child, getattr(child, "name", owner))


def not_annotated(function, is_method):
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    bound = is_method and not any(
        getattr(d, "id", "") == "staticmethod" for d in function.decorator_list
    )
    parameters = [*positional[bound:], *a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])]
    names = [p.arg for p in parameters if p.annotation is None]
    return names + ["return"] * (function.returns is None)


def missing(source, exempt=""):
    tree = ast.parse(source)
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return [
        f"{owner}.{function.name}: {', '.join(names)}"
        for owner, function in functions(tree)
        if (names := not_annotated(function, owner in classes))
        and (owner, function.name) != (exempt, "__init__")
    ]


def test_every_function_is_annotated():
    found = {
        str(path.relative_to(PACKAGE)): missing(
            path.read_text(encoding="utf-8"), ESTIMATORS.get(path.name, "")
        )
        for path in PACKAGE.rglob("*.py")
    }
    assert len(found) > 100
    assert {path: names for path, names in found.items() if names} == {}


def test_what_is_missing_is_found():
    source = "class A:\n    def f(self, x, *, y: int = 0, **z):\n        def g(): ...\n"
    assert missing(source) == ["A.f: x, z, return", "f.g: return"]
    assert missing("class A:\n    def __init__(self, x): ...\n", "A") == []
