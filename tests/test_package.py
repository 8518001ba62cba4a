"""What importing skad costs, and what it brings in."""

import subprocess
import sys

import skad


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    ).stdout.split()


def test_import_brings_in_no_heavy_library():
    loaded = run(
        "import sys, skad; print(*[m for m in ('torch', 'timm', 'faiss', 'torchvision', 'matplotlib',"
        " 'jinja2') if m in sys.modules])"
    )
    assert loaded == []


def test_import_does_next_to_nothing():
    # Counted in modules, not in seconds: at most skad itself and its version.
    before_and_after = run(
        "import sys, importlib; n = set(sys.modules); import skad;"
        " print(*sorted(m for m in set(sys.modules) - n if m.startswith('skad')))"
    )
    assert before_and_after == ["skad", "skad._common", "skad._common.version"]


def test_public_names():
    assert "PatchCoreDetector" in dir(skad)
    assert skad.PatchCoreDetector.__module__ == "skad._patchcore"
    assert skad.ReConPatchDetector.__module__ == "skad._reconpatch"
    assert skad.ScoreFusionDetector.__module__ == "skad._fusion"
    assert not hasattr(skad, "NoSuchDetector")


def test_inspection_imports_what_it_draws_with_when_it_draws():
    loaded = run(
        "import sys, skad.inspection;"
        " print(*[m for m in ('matplotlib', 'jinja2') if m in sys.modules])"
    )
    assert loaded == []


def test_drift_is_watched_without_scikit_learn():
    loaded = run(
        "import sys; from skad.metrics import DriftMonitor; DriftMonitor([0.0, 1.0]).update([0.5]);"
        " print(*[m for m in ('torch', 'sklearn', 'scipy', 'pandas') if m in sys.modules])"
    )
    assert loaded == []
