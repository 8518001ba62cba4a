"""Graphs that end at grids of patch scores: tiles of an image's own number, several canvases."""

import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_resnet  # noqa: F401  registers the backbone
import torch
from conftest import make_detector, make_dinomaly, make_reconpatch, make_recontrast
from exported_files import (
    WITHOUT_TORCH,
    need_libraries,
    of_several_sizes,
    region_mask,
    varied_images,
)

import skad
from skad import ScoreFusionDetector
from skad._export.description import describe
from skad._export.detectors import on_cpu
from skad._export.export import export_onnx
from skad._export.parts import Parts, needs_parts
from skad._export.verification import compare
from skad._runtime.content import Content
from skad._runtime.detector import ExportedDetector
from skad._runtime.parts import GraphInParts
from skad.cli._info import _exported

NATIVE = {"tiles": "native", "image_size": 64}
TINY = {"backbone": "tiny_resnet"}
RECONSTRUCTED = {"tiles": "native", "image_size": 64, "target_false_alarm_rate": 0.4}


def large_region():
    return np.kron(region_mask(), np.ones((2, 2), bool))


def large_images(n=10, seed=0):
    return varied_images(n, seed).repeat(2, axis=1).repeat(2, axis=2)


def fused(first, second, level="map", image_score="map"):
    members = [(f"m{i}", one) for i, one in enumerate((first, second))]
    return ScoreFusionDetector(
        members, level=level, image_score=image_score, target_false_alarm_rate=0.4
    )


def of_other_canvas(**params):
    return make_detector(image_size=48, layers=(2,), **params)


PATCH = {"image_score": "patch"}
ALONE = {
    "native": lambda: make_detector(**NATIVE),
    "native, share, squared": lambda: make_detector(
        **NATIVE, image_score=0.05, distance="squared", n_neighbors=2
    ),
    "native, patch": lambda: make_detector(**NATIVE, **PATCH),
    "native, patch, b": lambda: make_detector(**NATIVE, **PATCH, b=3),
    "native, roi": lambda: make_detector(**NATIVE, roi=large_region()),
    "native, reconpatch, b": lambda: make_reconpatch(**NATIVE, b=3, n_neighbors=2),
    "native, recontrast": lambda: make_recontrast(**TINY, **RECONSTRUCTED),
    "native, recontrast, roi": lambda: make_recontrast(**TINY, **RECONSTRUCTED, roi=large_region()),
    "native, dinomaly": lambda: make_dinomaly(**RECONSTRUCTED),
}
ENSEMBLES = {
    "canvases": lambda: fused(make_detector(), of_other_canvas()),
    "canvases, pad": lambda: fused(make_detector(geometry="pad"), of_other_canvas()),
    "canvases, crop": lambda: fused(make_detector(geometry="crop"), of_other_canvas()),
    "canvases, image, patch": lambda: fused(
        make_detector(geometry="pad", b=3, **PATCH), of_other_canvas(**PATCH), level="image"
    ),
    "canvases, image": lambda: fused(make_detector(), of_other_canvas(), level="image"),
    "canvases, patch": lambda: fused(make_detector(), of_other_canvas(), image_score="patch"),
    "canvases, share": lambda: fused(make_detector(), of_other_canvas(), image_score=0.1),
    "canvases, roi": lambda: fused(
        make_detector(roi=large_region()), of_other_canvas(roi=large_region())
    ),
    "grids, pad": lambda: fused(
        make_detector(geometry="pad", layers=(2,)), make_detector(geometry="pad", layers=(1,))
    ),
    "whole and tiles": lambda: fused(make_detector(), make_detector(**NATIVE)),
    "methods": lambda: fused(make_detector(), make_recontrast(**TINY, image_size=64)),
}


def images_for(det):
    members = getattr(det, "estimators_", [det])
    large = list(large_images(3, seed=1))
    if members[0]._roi() is not None:
        return large
    return [*large, *of_several_sizes()[8:], large[0].astype(np.float32) / 255]


class TorchSession:
    """Runs the networks of a graph as a session of ONNX Runtime does, in no time of exporting."""

    def __init__(self, parts):
        self._parts = parts

    def get_outputs(self):
        return [SimpleNamespace(name=name) for name in self._parts.outputs]

    def get_inputs(self):
        found = []
        for name, example, counts in self._parts.arguments:
            is_pixels = name.startswith("pixels")
            kind = "int64" if example.dtype == torch.int64 else "float"
            found.append(
                SimpleNamespace(
                    name=name.replace("pixels", "canvas"),
                    shape=[counts, *example.shape[1:]],
                    type=f"tensor({'uint8' if is_pixels else kind})",
                )
            )
        return found

    def run(self, outputs, inputs, options):
        assert options.only_execute_path_to_fetches
        found, start = {}, 0
        named = iter(self._parts.outputs)
        for network in self._parts.networks:
            stop = start + len(network.arguments)
            # What is not needed comes without images, which torch cannot pool: one stands in.
            given = map(partial(self._given, inputs), self._parts.arguments[start:stop])
            names = [next(named) for _ in network.outputs]
            if set(names) & set(outputs):
                # What is not asked for has no images: one stands in.
                given = [
                    value if len(value) else value.new_zeros(1, *value.shape[1:]) for value in given
                ]
                with torch.inference_mode():
                    found.update(zip(names, network(*given), strict=True))
            start = stop
        return [found[name].numpy() for name in outputs]

    def _given(self, inputs, argument):
        if not argument.name.startswith("pixels"):
            return torch.from_numpy(inputs[argument.name])
        suffix = argument.name.removeprefix("pixels")
        pixels = torch.from_numpy(inputs["canvas" + suffix]).float() / 255
        fractions = inputs.get("fractions" + suffix)
        return pixels if fractions is None else pixels + torch.from_numpy(fractions)


def loaded(det):
    """What `skad.load` makes of the file of a detector, with torch in place of ONNX Runtime."""
    fitted = on_cpu(det)
    content = Content.of_json(describe(fitted).to_json())
    line = object.__new__(ExportedDetector)
    line.content_ = content
    line._graph = GraphInParts(TorchSession(Parts(fitted)), content)
    line._take(content.thresholds)
    return line


def check(det):
    assert needs_parts(det)
    images, line = images_for(det), loaded(det)
    assert compare(on_cpu(det), line, images, 2e-5).n_images == len(images)
    inspected = list(det.inspect(images))
    # Scores alone ask less of the graph.
    np.testing.assert_allclose(
        line.score_samples(images),
        [wanted.score for wanted in inspected],
        rtol=2e-6,
        atol=2e-5 * abs(det.offset_),
    )
    for found, wanted in zip(line.inspect(images), inspected, strict=True):
        assert (found.verdict, found.shape) == (wanted.verdict, wanted.shape)
        np.testing.assert_allclose(found.p_value, wanted.p_value)
        np.testing.assert_array_equal(np.isnan(found.heatmap()), np.isnan(wanted.heatmap()))


@pytest.mark.parametrize("variant", ALONE)
def test_grids_of_tiles_become_the_maps_of_the_detector(variant):
    need_libraries()
    check(ALONE[variant]().fit(large_images()))


@pytest.mark.parametrize("variant", ENSEMBLES)
def test_grids_of_several_canvases_become_the_maps_of_the_ensemble(variant):
    need_libraries()
    check(ENSEMBLES[variant]().fit(large_images()))


def test_a_region_of_a_large_canvas_is_left_to_the_runtime(monkeypatch):
    need_libraries()
    monkeypatch.setattr("skad._export.parts.is_large", lambda canvas: True)
    check(make_detector(roi=large_region()).fit(large_images()))


def test_one_canvas_needs_no_parts():
    det = fused(make_detector(), make_detector(n_neighbors=2)).fit(large_images())
    assert not needs_parts(det)
    assert "parts" not in describe(on_cpu(det)).to_json()


def test_parts_are_written_to_a_file_and_read(tmp_path):
    need_libraries()
    det = ENSEMBLES["whole and tiles"]().fit(large_images())
    images, file = images_for(det), tmp_path / "line3.onnx"
    export_onnx(det, file, images)
    line = skad.load(file)
    assert line.content_.verified["largest_difference_of_maps"] <= 1e-5
    np.testing.assert_array_equal(line.predict(images), det.predict(images))
    assert [part.kind for part in line.content_.parts] == ["whole", "patches"]
    assert dict(_exported(line))["geometry of network 1"] == "tiles of 64 px"
    check_without_torch(det, file, images[:5])
    line.calibrate(large_images(6, seed=5))
    again = skad.load(file)
    assert again.offset_ == line.offset_ != det.offset_


def check_without_torch(det, file, images):
    np.savez(file.with_suffix(".npz"), *images)
    code = WITHOUT_TORCH + (
        "import numpy as np, skad\n"
        f"images = list(np.load({str(file.with_suffix('.npz'))!r}).values())\n"
        f"line = skad.load({str(file)!r})\n"
        "maps = line.predict_heatmap(images)\n"
        "print(*line.predict(images), *(float(one.max()) for one in maps))\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    found = np.array(run.stdout.split(), dtype=float)
    peaks = [one.max() for one in det.predict_heatmap(images)]
    np.testing.assert_array_equal(found[:5], det.predict(images))
    np.testing.assert_allclose(found[5:], peaks, rtol=1e-5, atol=1e-5 * abs(det.offset_))


def test_integers_are_for_one_canvas(tmp_path):
    det = make_detector(**NATIVE).fit(large_images())
    with pytest.raises(ValueError, match="int8_from is for images on a canvas of one size"):
        export_onnx(det, tmp_path / "line3.onnx", int8_from=large_images(4))


def test_parts_of_unknown_kinds_are_refused():
    text = describe(on_cpu(make_detector(**NATIVE).fit(large_images()))).to_json()
    with pytest.raises(ValueError, match="no parts of kind 'other'"):
        Content.of_json(text.replace('"patches"', '"other"'))
