"""Count the functions and files of skad that `score_samples` of one image runs through.

::

    python tools/trace_scoring.py [--list] [--input array|png]
    SKAD_PLAIN=1 python tools/trace_scoring.py

A fitted PatchCoreDetector scores one image twice, and the second time is looked at. Comprehensions and
lambdas count as part of the function that they stand in.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

import skad

PACKAGE = Path(skad.__file__).parent


def visited(call: Callable[[], Any]) -> Counter[tuple[str, str]]:
    """Run a call; how often each (file, function) of skad was entered in this thread."""
    calls: Counter[tuple[str, str]] = Counter()

    def note(frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        inside = code.co_name.startswith("<")
        if event == "call" and not inside and Path(code.co_filename).is_relative_to(PACKAGE):
            file = Path(code.co_filename).relative_to(PACKAGE)
            calls[str(file), code.co_qualname.replace(".<locals>", "")] += 1

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name them all")
    parser.add_argument("--input", choices=["array", "png"], default="array")
    options = parser.parse_args()
    good = np.random.default_rng(0).integers(90, 110, (20, 64, 64, 3), dtype=np.uint8)
    detector = skad.PatchCoreDetector(
        "skad_nano", image_size=64, coreset_size=0.5, random_state=0, device="cpu", n_jobs=1
    ).fit(good)
    with tempfile.TemporaryDirectory() as folder:
        images: Any = good[:1]
        if options.input == "png":
            images = [Path(folder, "image.png")]
            Image.fromarray(good[0]).save(images[0])
        detector.score_samples(images)
        calls = visited(lambda: detector.score_samples(images))
    files = {file for file, _ in calls}
    print(f"{len(calls)} functions in {len(files)} files")
    if options.list:
        for (file, name), n in sorted(calls.items()):
            print(f"{file:<32} {name:<50} {n}")


if __name__ == "__main__":
    main()
