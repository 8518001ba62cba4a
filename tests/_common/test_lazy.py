"""Packages whose names are loaded on first use: complete, and honest about names that are not there."""

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["skad.benchmark", "skad.datasets"])
def test_every_public_name_is_found_and_listed(package):
    module = importlib.import_module(package)
    assert set(module.__all__) == set(module._HOMES)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_a_name_is_looked_up_once():
    code = """
import sys, skad.datasets as package
assert "read_mask" not in vars(package) and "numpy" not in sys.modules
first = package.read_mask
assert vars(package)["read_mask"] is first and "numpy" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
