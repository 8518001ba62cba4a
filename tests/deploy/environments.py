"""Fresh virtual environments with skad as users install it: from a wheel of this tree."""

import atexit
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from functools import cache
from pathlib import Path

import pytest
from scripts import ROOT

PINS = ("--constraint", str(ROOT / "constraints.txt"))
RUNTIME = ("numpy", "pillow", "scipy", "onnxruntime")
SERVICE = ("fastapi", "prometheus-client", "python-multipart", "uvicorn")


def run(*command, **options):
    """Run a command where neither folder nor variable leads back to this tree; output is captured."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    options = {"cwd": tempfile.gettempdir(), **options}
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=600, check=False,
        env={**env, "OMP_NUM_THREADS": "1"}, **options,
    )  # fmt: skip


def pip(python, *arguments):
    """Run pip of an environment; what it cannot do is an error."""
    done = run(python, "-m", "pip", "--disable-pip-version-check", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def folder():
    """Make a folder that goes with this process: environments are large."""
    made = Path(tempfile.mkdtemp(prefix="skad-tests-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def _answers():
    """Whether pip reaches an index of packages: asked once, for a small one."""
    command = ("-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder())
    return run(sys.executable, *command, *PINS, "flatbuffers").returncode == 0


def need_packages():
    """Skip a test where packages cannot be had."""
    if not _answers():
        pytest.skip("pip reaches no index of packages")


@cache
def wheel():
    """Build the wheel of this tree."""
    need_packages()
    place = folder()
    pip(sys.executable, "wheel", "--quiet", "--no-deps", "--wheel-dir", place, ROOT)
    (path,) = place.glob("skad-*.whl")
    return path


class Environment:
    """A virtual environment of its own."""

    def __init__(self):
        self.root = folder() / "env"
        venv.create(self.root, with_pip=True)
        self.python = self.root / "bin" / "python"
        self.skad = self.root / "bin" / "skad"
        paths = sysconfig.get_paths(vars={"base": str(self.root), "platbase": str(self.root)})
        self.packages = Path(paths["purelib"])

    def install(self, *arguments):
        """Install packages, in the versions of constraints.txt."""
        pip(self.python, "install", "--quiet", *PINS, *arguments)

    def see(self, packages):
        """See the packages of another environment too, behind its own."""
        (self.packages / "seen.pth").write_text(f"{packages}\n")


@cache
def runtime():
    """An environment with what an exported file needs, and skad without its dependencies."""
    need_packages()
    made = Environment()
    made.install(*RUNTIME)
    made.install("--no-deps", wheel())
    return made


@cache
def service():
    """The same, with what the service needs."""
    made = Environment()
    made.see(runtime().packages)
    made.install(*SERVICE)
    return made


@cache
def installed():
    """An environment with skad's wheel, which sees the libraries that run these tests.

    An editable skad among them is not seen: a folder that a ``.pth`` file names is searched for
    packages, not for further ``.pth`` files.
    """
    need_packages()
    made = Environment()
    made.install("--no-deps", wheel())
    made.see(sysconfig.get_paths()["purelib"])
    return made
