"""What skad takes from scikit-learn beyond its public names stands in one file."""

import ast
from pathlib import Path

import skad
from skad import _sklearn_compat

ROOT = Path(skad.__file__).parent


def private_imports(path):
    """Lines of a file that import from scikit-learn what begins with an underscore."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, *parts = name.split(".")
            if package == "sklearn" and any(part.startswith("_") for part in parts):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {name}"


def test_private_names_of_scikit_learn_are_imported_in_one_file():
    compat = Path(_sklearn_compat.__file__)
    assert list(private_imports(compat))  # the walk does find them
    elsewhere = [path for path in ROOT.rglob("*.py") if path != compat]
    assert [found for path in elsewhere for found in private_imports(path)] == []


def test_every_name_is_in_use():
    texts = [path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")]
    for name in _sklearn_compat.__all__:
        assert sum(name in text for text in texts) > 1, name
