"""The exported file in other languages, and the texts for machines that run it."""

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import environments
import numpy as np
import pytest
from exported_files import exported_line, varied_defects, varied_images
from PIL import Image
from scripts import ROOT

import skad

pytestmark = pytest.mark.deploy

DEPLOY = ROOT / "examples" / "deploy"
HEADER = "onnxruntime_cxx_api.h"
PACKAGE, RELEASE = "libonnxruntime-dev", "trixie"
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")


@cache
def headers():
    """Folder of ONNX Runtime's headers: of the system, or of a package of Debian's, unpacked."""
    for place in ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/usr/include"):
        if (Path(place) / HEADER).exists():
            return Path(place)
    if not (SOURCES.exists() and shutil.which("apt-get") and shutil.which("dpkg")):
        return None
    return _unpacked()


def _unpacked():
    """Get the package from where this machine gets its own, of the release that has it."""
    place = environments.folder()
    first = SOURCES.read_text().split("\n\n")[0]
    (place / "debian.sources").write_text(
        re.sub(r"^Suites:.*", f"Suites: {RELEASE}", first, flags=re.M)
    )
    for name in ("lists/partial", "archives/partial"):
        (place / name).mkdir(parents=True)
    options = {
        "Dir::Etc::sourcelist": place / "debian.sources",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": place / "lists",
        "Dir::Cache": place,
    }
    apt = ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
    for command in (["update"], ["download", PACKAGE]):
        if environments.run(*apt, *command, cwd=place).returncode:
            return None
    (package,) = place.glob(f"{PACKAGE}_*.deb")
    environments.run("dpkg", "-x", package, place / "root")
    return next(iter((place / "root").rglob(HEADER))).parent


@cache
def compiled():
    """The C++ example, linked with the library of Python's package."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    if headers() is None:
        pytest.skip(f"ONNX Runtime's headers are not to be had ({PACKAGE} of Debian or Ubuntu)")
    import onnxruntime

    place = environments.folder()
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (place / name).symlink_to(library)
    done = environments.run(
        "g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-isystem", headers(),
        DEPLOY / "judge.cpp", f"-L{place}", "-lonnxruntime", f"-Wl,-rpath,{place}",
        "-o", place / "judge",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place / "judge"


@pytest.mark.parametrize("image", [varied_images()[0], varied_defects()[0]], ids=["good", "bad"])
def test_cpp_judges_as_python_does(image, tmp_path):
    line = skad.load(exported_line())
    height, width = (32, 32)
    canvas = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    (tmp_path / "canvas.rgb").write_bytes(canvas.tobytes())
    done = environments.run(compiled(), exported_line(), tmp_path / "canvas.rgb")
    assert done.returncode == 0, done.stderr
    found = dict(told.split(" ", 1) for told in done.stdout.splitlines())
    np.testing.assert_allclose(float(found["score"]), line.score_samples([image])[0], rtol=1e-6)
    np.testing.assert_allclose(float(found["p_value"]), line.anomaly_p_value([image])[0], rtol=1e-6)
    assert found["verdict"] == ("good" if line.predict([image])[0] > 0 else "defective")
    heatmap = line.predict_heatmap([np.asarray(canvas)])[0]
    peak = np.unravel_index(heatmap.argmax(), heatmap.shape)
    assert tuple(map(int, found["peak"].split())) == tuple(map(int, peak))


def test_cpp_says_what_is_wrong(tmp_path):
    (tmp_path / "canvas.rgb").write_bytes(b"too short")
    short = environments.run(compiled(), exported_line(), tmp_path / "canvas.rgb")
    assert short.returncode == 1
    assert "as many bytes as height x width x 3" in short.stderr
    missing = environments.run(compiled(), tmp_path / "missing.onnx", tmp_path / "canvas.rgb")
    assert missing.returncode == 1
    assert "missing.onnx" in missing.stderr


def test_systemd_understands_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    text = (DEPLOY / "skad.service").read_text()
    assert text.count("/opt/skad/bin/python") == 1
    (tmp_path / "skad.service").write_text(text.replace("/opt/skad/bin/python", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "skad.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
