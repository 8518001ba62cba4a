"""Scripts of the project, run as a user runs them."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import textwrap
import traceback
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch

ROOT = Path(__file__).parents[1]


def run_apart(script, *arguments, cwd=None):
    """Run a script in a process of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)], cwd=cwd, capture_output=True,
        text=True, timeout=300, check=False, env={**os.environ, "MPLBACKEND": "Agg"},
    )  # fmt: skip


def run_code(code):
    """Run code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def assert_alive(code):
    """Run code in a process of its own, which must come to its end, where it prints "alive"."""
    result = run_code(code)
    assert result.stdout.strip() == "alive", result.stderr


def run(script, *arguments, cwd=None):
    """Run a script in this process, which has imported torch and timm already: seconds less."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    before = sys.argv, sys.path[:], Path.cwd(), torch.get_num_threads()
    sys.argv = [str(ROOT / script), *map(str, arguments)]
    sys.path.insert(0, str((ROOT / script).parent))
    os.chdir(cwd or before[2])
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("default")
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if code and isinstance(stop.code, str):
            err.write(stop.code)
    except Exception:
        code = 1
        err.write(traceback.format_exc())
    finally:
        sys.argv, sys.path[:] = before[:2]
        os.chdir(before[2])
        torch.set_num_threads(before[3])
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")
    err.writelines(str(warning.message) for warning in caught)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())
