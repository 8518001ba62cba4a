"""Memory of a fit, measured in processes of their own."""

import subprocess
import sys

import pytest

resource = pytest.importorskip("resource")

CODE = """
import resource, sys
import numpy as np
from skad import PatchCoreDetector

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def fit(n, **params):
    images = np.random.default_rng(0).integers(0, 256, (n, 64, 64), dtype=np.uint8)
    return PatchCoreDetector(
        "resnet10t", weights=None, layers=(1, 2), image_size=64, aggregation="adaptive",
        n_jobs=1, random_state=0, **params
    ).fit(images)

limit = None if sys.argv[1] == "None" else sys.argv[1]
fit(8)
before = peak()
det = fit(200, max_memory=limit)
whole = 200 * 256 * det.bank_.vectors.shape[1] * 4
print((peak() - before) / whole)
"""


def peak_fraction(max_memory):
    """Peak memory of a fit beyond what the backbone takes, as a fraction of N x d x 4 bytes."""
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(max_memory)],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return float(result.stdout)


def test_less_than_the_embeddings_is_held():
    # Cells take 5/8 of them here, projections 1/8.
    assert peak_fraction(None) <= 0.9


def test_max_memory_bounds_it_further():
    assert peak_fraction("60MB") <= 0.5
