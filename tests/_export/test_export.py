"""Exported files score as the detectors that they were made of, or are not written."""

import logging

import numpy as np
import pytest
import tiny_resnet  # noqa: F401  registers the backbone
import torch
from conftest import (
    make_detector,
    make_dinomaly,
    make_padim,
    make_reconpatch,
    make_recontrast,
    make_spade,
)
from exported_files import (
    need_libraries,
    of_several_sizes,
    region_mask,
    varied_defects,
    varied_images,
)
from sklearn.exceptions import NotFittedError

import skad
from skad import ScoreFusionDetector
from skad._export import export
from skad._export.banks import BankDistances
from skad._export.detectors import first_member, network_of, on_cpu
from skad._export.export import export_onnx
from skad._images import Frame


def fused(others=(), level="map", image_score="map", **params):
    members = [make_detector(**params), make_detector(**{**params, **dict(others)})]
    return ScoreFusionDetector(
        [("a", members[0]), ("b", members[1])],
        level=level,
        image_score=image_score,
        target_false_alarm_rate=0.2,
    )


# The smallest of backbones: what is written does not depend on it.
TINY = {"backbone": "tiny_resnet"}
VARIANTS = {
    "plain": (make_detector, {}),
    "pad": (make_detector, {"geometry": "pad", "image_size": (64, 48)}),
    "crop": (make_detector, {"geometry": "crop"}),
    "rectangle": (make_detector, {"image_size": (32, 48)}),
    "roi": (make_detector, {"roi": region_mask()}),
    "roi, pad": (make_detector, {"roi": region_mask(), "geometry": "pad"}),
    "patch": (make_detector, {"image_score": "patch", "geometry": "pad"}),
    "patch, b": (make_detector, {"image_score": "patch", "b": 3, "geometry": "pad"}),
    "patch, b, roi": (make_detector, {"image_score": "patch", "b": 3, "roi": region_mask()}),
    "share": (make_detector, {"image_score": 0.1}),
    "share, pad": (make_detector, {"image_score": 0.1, "geometry": "pad"}),
    "squared": (make_detector, {"n_neighbors": 3, "distance": "squared"}),
    "adaptive": (
        make_detector,
        {"aggregation": "adaptive", "pretrain_dim": 50, "target_dim": 40, "layers": (1, 2, 3)},
    ),
    "not whitened": (make_detector, {"whitening": 0.0, "smoothing": 0.0}),
    "tiles": (make_detector, {"tiles": (2, 3), "image_size": 48}),
    "tiles, pad": (make_detector, {"tiles": (2, 1), "image_size": 48, "geometry": "pad"}),
    "tiles, roi": (make_detector, {"tiles": (2, 2), "image_size": 48, "roi": region_mask()}),
    "tiles, patch, b": (
        make_detector,
        {"tiles": (2, 2), "image_size": 48, "image_score": "patch", "b": 3},
    ),
    "transformer": (make_detector, {"backbone": "test_vit", "weights": None, "image_size": 64}),
    "recontrast": (make_recontrast, TINY),
    "recontrast, pad": (make_recontrast, {**TINY, "geometry": "pad", "pairs": "own"}),
    "recontrast, roi": (make_recontrast, {**TINY, "roi": region_mask(), "image_score": 0.05}),
    "dinomaly": (make_dinomaly, {}),
    "padim": (make_padim, {}),
    "padim, pad, share": (make_padim, {"geometry": "pad", "image_score": 0.1}),
    "padim, roi": (make_padim, {"roi": region_mask()}),
    "fusion": (fused, {"others": {"n_neighbors": 2, "smoothing": 2.0}}),
    "fusion, image": (fused, {"others": {"n_neighbors": 2}, "level": "image"}),
    "fusion, patch": (
        fused,
        {"geometry": "pad", "others": {"n_neighbors": 2}, "image_score": "patch"},
    ),
    "fusion, roi": (fused, {"roi": region_mask(), "others": {"layers": (1,)}}),
    "fusion, grids": (fused, {"others": {"layers": (1, 2)}, "layers": (2,)}),
    "reconpatch": (make_reconpatch, {}),
    "reconpatch, b": (make_reconpatch, {"b": 3, "n_neighbors": 2}),
}


def images_for(det):
    every = of_several_sizes()
    return every[:10] if first_member(det)._roi() is not None else every


def as_tensors(det, images):
    """Canvases of images, and where the images lie on them."""
    images = [np.repeat(i[:, :, None], 3, axis=2) if i.ndim == 2 else i for i in images]
    det = first_member(det)
    if det.roi is not None:
        images = [det.roi_.of(image, "").blank(image) for image in images]
    canvases = np.stack([det.geometry_.apply(image) for image in images])
    content = [det.geometry_.content(*Frame(image.shape[:2]).shape) for image in images]
    return torch.from_numpy(canvases).float() / 255, torch.tensor(content)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_network_that_is_exported_scores_as_the_detector(variant):
    make, params = VARIANTS[variant]
    det = make(**params).fit(varied_images())
    check_network(det, images_for(det))


def check_network(det, images):
    fitted = on_cpu(det)
    pixels, content = as_tensors(fitted, images)
    with torch.inference_mode():
        score, verdict, maps, p_value = network_of(fitted)(pixels, content)
    np.testing.assert_allclose(score, det.score_samples(images), rtol=2e-5)
    np.testing.assert_array_equal(verdict, det.predict(images))
    np.testing.assert_allclose(p_value, det.anomaly_p_value(images), rtol=1e-6)
    for found, wanted in zip(maps.numpy(), fitted._iter_maps(images), strict=True):
        seen = ~np.isnan(wanted.canvas)
        scale = abs(det.offset_) + np.abs(wanted.canvas[seen])
        assert np.max(np.abs(found[seen] - wanted.canvas[seen]) / scale) < 2e-5


@pytest.mark.parametrize(
    "params",
    [
        {"tiles": (1, 2)},
        {"tiles": (2, 1), "roi": np.kron(region_mask(), np.ones((3, 3), bool)), "geometry": "pad"},
    ],
)
def test_reconstructions_see_tiles(params):
    images = varied_images().repeat(3, axis=1).repeat(3, axis=2)
    det = make_recontrast(**TINY, image_size=96, **params).fit(images)
    check_network(det, [*images[:3], *varied_defects()[:2].repeat(3, axis=1).repeat(3, axis=2)])


@pytest.mark.parametrize("n_neighbors", [1, 4])
def test_a_large_bank_is_searched_block_by_block(n_neighbors, monkeypatch):
    det = make_detector(n_neighbors=n_neighbors, coreset_size=1.0).fit(varied_images())
    pixels, _ = as_tensors(det, varied_defects())
    monkeypatch.setattr("skad._export.banks._BLOCK", 64)
    assert len(det.bank_) > 64
    with torch.inference_mode():
        score, *_ = network_of(on_cpu(det))(pixels)
    np.testing.assert_allclose(score, det.score_samples(varied_defects()), rtol=1e-5)


def test_vectors_of_the_bank_are_at_no_distance():
    det = make_detector(coreset_size=1.0).fit(varied_images())
    distances = BankDistances(det.bank_, det._scorer().rule)
    with torch.inference_mode():
        scores = distances(torch.from_numpy(det.bank_.vectors))
    np.testing.assert_array_equal(scores, 0)


# ------------------------------------------------------------------------ files


@pytest.fixture(scope="module")
def fitted():
    need_libraries()
    return make_detector(geometry="pad", image_score="patch", b=3).fit(varied_images())


@pytest.fixture(scope="module")
def file(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("line") / "line3.onnx"
    skad.export_onnx(fitted, path, of_several_sizes())
    return path


def test_the_file_says_on_what_it_was_verified(file):
    content = skad.load(file).content_
    assert content.detector == "PatchCoreDetector"
    assert content.versions["skad"] == skad.__version__
    assert content.verified["on"] == "images"
    assert content.verified["n_images"] == len(of_several_sizes())
    assert 0 < content.verified["largest_difference_of_scores"] <= content.verified["tolerance"]
    assert 0 < content.verified["largest_difference_of_maps"] <= 1e-5


def test_the_file_is_run_by_others_as_well(fitted, file):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options)
    images = of_several_sizes()[:10]
    canvases = np.stack([fitted.geometry_.apply(image) for image in images])
    content = np.array([fitted.geometry_.content(*image.shape[:2]) for image in images])
    names = ["score", "verdict", "p_value", "map"]
    found = session.run(names, {"canvas": canvases, "content": content})
    np.testing.assert_allclose(found[0], fitted.score_samples(images), rtol=1e-5)
    np.testing.assert_array_equal(found[1], fitted.predict(images))
    np.testing.assert_allclose(found[2], fitted.anomaly_p_value(images), rtol=1e-6)
    alone = session.run(names, {"canvas": canvases[3:4], "content": content[3:4]})
    np.testing.assert_allclose(alone[3][0], found[3][3], rtol=1e-5)


def test_nothing_of_this_machine_is_in_the_file(file):
    content = file.read_bytes()
    assert b"site-packages" not in content
    assert b"/skad/" not in content


def test_what_scores_otherwise_is_not_written(fitted, file, tmp_path, monkeypatch):
    from onnx import load, numpy_helper

    graph = load(file)
    vectors = [one for one in graph.graph.initializer if ".distances.parts." in one.name]
    assert vectors
    for one in vectors:
        scaled = numpy_helper.to_array(one) * np.float32(1.0001)
        one.CopyFrom(numpy_helper.from_array(scaled, one.name))
    monkeypatch.setattr(export, "_graph_of", lambda fitted: graph)
    target = tmp_path / "wrong.onnx"
    target.write_bytes(b"as before")
    with pytest.raises(RuntimeError, match=r"image 0 another score .* 1e-05 is allowed"):
        skad.export_onnx(fitted, target, of_several_sizes())
    assert target.read_bytes() == b"as before"
    assert list(tmp_path.iterdir()) == [target]


def test_integers_bring_thresholds_of_their_own(tmp_path, caplog, monkeypatch):
    need_libraries()
    import onnx

    det = make_detector(target_false_alarm_rate=0.2).fit(varied_images())
    fresh, path = varied_images(10, seed=7), tmp_path / "int8.onnx"
    skad.export_onnx(det, path, of_several_sizes(), int8_from=fresh, tolerance=0.9)
    line = skad.load(path)
    assert line.content_.verified["convolutions"] == "int8"
    assert 1e-5 < line.content_.verified["largest_difference_of_scores"] < 0.9
    np.testing.assert_allclose(np.sort(line.score_samples(fresh)), line.calibration_scores_)
    assert np.mean(line.predict(fresh) == -1) <= 0.2
    assert line.offset_ != det.offset_
    np.testing.assert_array_equal(
        line._graph._session.run(["verdict"], next(line._iter_inputs(varied_defects())))[0],
        line.predict(varied_defects()[:1]),
    )
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    # The same graph again, at the default tolerance.
    graph = onnx.load(path)
    monkeypatch.setattr(export, "_graph_of", lambda fitted: graph)
    monkeypatch.setattr(export, "_in_int8", lambda *_: (graph, line.content_))
    with pytest.raises(RuntimeError, match=r"0\.2 is allowed. 8-bit integers"):
        skad.export_onnx(det, path, of_several_sizes(), int8_from=fresh)


def test_integers_are_for_banks(tmp_path):
    det = make_recontrast(**TINY).fit(varied_images())
    with pytest.raises(ValueError, match="int8_from is for detectors with a memory bank"):
        export_onnx(det, tmp_path / "line3.onnx", int8_from=varied_images(4))


def test_without_images_the_file_says_so(tmp_path):
    need_libraries()
    det = make_reconpatch(roi=region_mask()).fit(varied_images())
    with pytest.warns(UserWarning, match="not verified on images"):
        skad.export_onnx(det, tmp_path / "line3.onnx")
    line = skad.load(tmp_path / "line3.onnx")
    assert line.content_.verified["on"] == "not verified on images"
    images = images_for(det)
    np.testing.assert_array_equal(line.predict(images), det.predict(images))
    for found, wanted in zip(
        line.predict_heatmap(images), det.predict_heatmap(images), strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=2e-5 * abs(det.offset_))
    with pytest.raises(ValueError, match=r"image 1 .*has 30 x 48 pixels"):
        line.predict([images[0], images[0][:30]])


# --------------------------------------------------------------------- refusals


def find_region(image):
    return image[:, :, 0] >= 0


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"roi": find_region}, "roi is a function"),
        ({"precision": "bfloat16"}, "precision='bfloat16'"),
        ({"index": "HNSW8"}, "index='HNSW8'"),
    ],
)
def test_what_cannot_be_exported_is_named_before_any_work(params, named, tmp_path, monkeypatch):
    det = make_detector().fit(varied_images())
    if "index" in params:
        det.index = det._params_at_fit["index"] = params["index"]
    else:
        det = make_detector(**params).fit(varied_images())
    monkeypatch.setattr(export, "_import_libraries", lambda: pytest.fail("work has started"))
    with pytest.raises(ValueError, match=named):
        export_onnx(det, tmp_path / "line3.onnx")


@pytest.mark.parametrize("name", ["X", "int8_from"])
@pytest.mark.parametrize("others", [0, 1])
def test_images_that_cannot_be_read_are_named_before_any_work(tmp_path, monkeypatch, name, others):
    det = make_detector().fit(varied_images())
    images = [*varied_images()[:others], str(tmp_path / "missing.png")]
    monkeypatch.setattr(export, "_graph_of", lambda fitted: pytest.fail("work has started"))
    with pytest.raises(ValueError, match=rf"image {others} .*missing\.png.*no such file"):
        export_onnx(det, tmp_path / "line3.onnx", **{name: images})
    assert not any(tmp_path.iterdir())


def test_spade_is_named(tmp_path):
    det = make_spade().fit(varied_images())
    with pytest.raises(
        ValueError, match=r"SPADEDetector: it cannot be exported so far; skad\.save"
    ):
        export_onnx(det, tmp_path / "line3.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["recontrast", "dinomaly", "padim", "transformer", "fusion"])
def test_other_detectors_as_files(variant, tmp_path, caplog):
    need_libraries()
    make, params = VARIANTS[variant]
    det, images = make(**params).fit(varied_images()), of_several_sizes()
    export_onnx(det, tmp_path / "line3.onnx", images)
    np.testing.assert_array_equal(
        skad.load(tmp_path / "line3.onnx").predict(images), det.predict(images)
    )
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


def test_tables_are_not_exported(tmp_path):
    rows = np.random.default_rng(0).uniform(0, 1, (12, 64))
    with pytest.warns(skad.TabularDataWarning):
        det = make_detector().fit(rows)
    with pytest.raises(ValueError, match="fitted on a table of numbers"):
        export_onnx(det, tmp_path / "line3.onnx")


def test_what_is_passed_is_checked(tmp_path):
    det = make_detector()
    with pytest.raises(NotFittedError):
        export_onnx(det, tmp_path / "line3.onnx")
    with pytest.raises(ValueError, match=r"must end in '\.onnx'"):
        export_onnx(det, tmp_path / "line3.skad")
    with pytest.raises(TypeError, match="list is no detector"):
        export_onnx([], tmp_path / "line3.onnx")
    with pytest.raises(ValueError, match="tolerance must be"):
        export_onnx(det.fit(varied_images()), tmp_path / "line3.onnx", tolerance=0)


def test_missing_libraries_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    pytest.importorskip("onnx", reason="onnx is not installed (skad[onnx])")
    with pytest.raises(ImportError, match=r"skad\[onnx\]"):
        export_onnx(make_detector().fit(varied_images()), tmp_path / "line3.onnx")
