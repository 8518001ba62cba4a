"""Memory of a fit, measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="this system does not tell peaks of memory"
)

# The peak that `resource` tells is that of the process which has started this one, if it was larger.
CODE = """
import sys
import numpy as np
from skad import PatchCoreDetector

def peak():
    status = open("/proc/self/status").read()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])

def fit(n, **params):
    images = np.random.default_rng(0).integers(0, 256, (n, 64, 64), dtype=np.uint8)
    return PatchCoreDetector(
        "resnet10t", weights=None, layers=(1, 2), image_size=64, aggregation="adaptive",
        whitening=0.0, n_jobs=1, random_state=0, coreset_size=100, **params
    ).fit(images)

fit(8)
before = peak()
for limit in ("120MB", None):  # the smaller peak first
    det = fit(400, max_memory=limit)
    print((peak() - before) / (400 * 256 * det.bank_.vectors.shape[1] * 4))
    del det
"""


@pytest.fixture(scope="module")
def peak_fractions():
    """Peaks of a fit beyond what the backbone takes, as fractions of N x d x 4 bytes."""
    result = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300, check=True
    )
    return [float(line) for line in result.stdout.split()]


def test_max_memory_bounds_it(peak_fractions):
    assert peak_fractions[0] <= 0.53


def test_embeddings_are_not_held(peak_fractions):
    # Pooled feature maps take 5/8 of them here, projections 1/8, those of two folds 1/12; the rest does
    # not grow with the images, of which 48 are scored together. Whitening is done in place, as
    # _features/test_whitening.py says.
    assert peak_fractions[0] < peak_fractions[1] <= 1.1
