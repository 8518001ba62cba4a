"""What an exported file does on the line: without torch, with the same images, and beside others."""

import json
import pickle
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
from conftest import make_detector
from exported_files import (
    WITHOUT_TORCH,
    need_libraries,
    of_several_sizes,
    varied_defects,
    varied_images,
)
from PIL import Image

import skad
from skad._runtime.file import with_checksum


@pytest.fixture(scope="module")
def fitted():
    need_libraries()
    return make_detector().fit(varied_images())


@pytest.fixture(scope="module")
def original(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "line3.onnx"
    skad.export_onnx(fitted, path, of_several_sizes())
    return path


@pytest.fixture
def file(original, tmp_path):
    """A copy that a test may change, or write beside."""
    path = tmp_path / "line3.onnx"
    path.write_bytes(original.read_bytes())
    return path


@pytest.fixture
def line(file):
    return skad.load(file)


def test_it_judges_as_the_detector_does(fitted, line):
    images = of_several_sizes()
    scores = line.score_samples(images)
    np.testing.assert_allclose(scores, fitted.score_samples(images), rtol=1e-5)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(line.decision_function(images), scores - fitted.offset_)
    np.testing.assert_array_equal(line.predict(images), fitted.predict(images))
    np.testing.assert_array_equal(line.anomaly_p_value(images), fitted.anomaly_p_value(images))
    assert {-1, 1} == {*line.predict(images)}


def test_it_maps_as_the_detector_does(fitted, line):
    images = of_several_sizes()
    maps, scores = line.predict_heatmap(images, return_scores=True)
    np.testing.assert_array_equal(scores, line.score_samples(images))
    for found, wanted in zip(maps, fitted.predict_heatmap(images), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * abs(fitted.offset_))


def test_it_finds_the_regions_of_the_detector(fitted, line):
    images = of_several_sizes()
    found, wanted = line.predict_regions(images), fitted.predict_regions(images)
    assert [len(regions) for regions in found] == [len(regions) for regions in wanted]
    assert [bool(regions) for regions in found] == (line.predict(images) < 0).tolist()
    for one, other in zip(chain(*found), chain(*wanted), strict=True):
        assert one.box == other.box
        np.testing.assert_array_equal(one.mask, other.mask)


def test_every_kind_of_image_is_taken(fitted, line, tmp_path):
    image = varied_defects()[0]
    Image.fromarray(image).save(tmp_path / "part.png")
    kinds = [tmp_path / "part.png", str(tmp_path / "part.png"), Image.fromarray(image), image]
    kinds.append((tmp_path / "part.png").read_bytes())
    assert len({*line.score_samples(kinds).tolist()}) == 1
    exact = [image.astype(np.float64) / 255, image[:, :, 0].astype(np.uint16) * 257]
    np.testing.assert_allclose(line.score_samples(exact), fitted.score_samples(exact), rtol=1e-5)


def test_what_cannot_be_used_is_named(line, tmp_path):
    with pytest.raises(ValueError, match=r"image 1 .*no such file"):
        line.predict([varied_defects()[0], tmp_path / "missing.png"])
    with pytest.raises(ValueError, match="at least 16"):
        line.predict([varied_defects()[0][:4]])
    with pytest.raises(ValueError, match="table of numbers"):
        line.predict(np.zeros((3, 64)))


def test_it_needs_neither_torch_nor_scikit_learn(fitted, file, tmp_path):
    np.save(tmp_path / "images.npy", varied_defects())
    code = WITHOUT_TORCH + (
        "import numpy as np, skad\n"
        f"images = np.load({str(tmp_path / 'images.npy')!r})\n"
        f"line = skad.load({str(file)!r})\n"
        "assert 'scipy.stats' not in sys.modules\n"
        "print(*line.predict(images), *map(len, line.predict_regions(images)))\n"
        "line.predict_heatmap(images), line.anomaly_p_value(images)\n"
        "line.calibrate(images, target_false_alarm_rate=0.4)\n"
        "line.calibrate(target_false_alarm_rate=0.3)\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    regions = [len(found) for found in fitted.predict_regions(varied_defects())]
    assert run.stdout.split() == [*["-1"] * 4, *map(str, regions)]


# ------------------------------------------------------------------- calibration


def test_thresholds_are_kept_beside_the_file(fitted, file, line):
    before = file.read_bytes()
    fresh = varied_images(20, seed=3)
    assert line.calibrate(fresh) is line
    assert len(line.calibration_scores_) == 20
    expected = make_detector().fit(varied_images()).calibrate(fresh)
    np.testing.assert_allclose(line.offset_, expected.offset_, rtol=1e-5)
    assert line.heatmap_threshold_ == -line.offset_
    again = skad.load(file)
    assert again.offset_ == line.offset_ != fitted.offset_
    np.testing.assert_array_equal(again.calibration_scores_, line.calibration_scores_)
    assert file.read_bytes() == before
    again.calibrate(target_false_alarm_rate=0.4)
    assert skad.load(file).target_false_alarm_rate == 0.4
    assert again.offset_ > line.offset_


def test_a_rate_must_make_sense(line):
    with pytest.raises(ValueError, match="needs fresh good images, or"):
        line.calibrate()
    with pytest.raises(ValueError, match=r"must be in \(0, 1\)"):
        line.calibrate(target_false_alarm_rate=5)
    with pytest.raises(ValueError, match="at least two fresh"):
        line.calibrate(varied_images(1))


def test_thresholds_of_another_export_are_not_taken(fitted, file, line):
    line.calibrate(target_false_alarm_rate=0.4)
    beside = file.with_name("line3.onnx.calibration.json")
    content = json.loads(beside.read_text())
    beside.write_text(json.dumps({**content, "belongs_to": "0" * 64}))
    with pytest.warns(UserWarning, match="belongs to another export"):
        assert skad.load(file).offset_ == fitted.offset_
    for damaged in ("{", '{"format": 1}', json.dumps({**content, "offset": None})):
        beside.write_text(damaged)
        with pytest.raises(ValueError, match="not what calibrate writes"):
            skad.load(file)


# ------------------------------------------------------------------------- files


def test_damaged_files_are_refused(file):
    content = bytearray(file.read_bytes())
    for at in (100, len(content) // 2, len(content) - 1):
        damaged = content.copy()
        damaged[at] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|incomplete"):
            skad.load(file)
    for length in (0, 10, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match="incomplete, or no file that skad"):
            skad.load(file)


def test_files_of_others_are_refused(file):
    import onnx

    model = onnx.load(file)
    file.write_bytes(model.SerializeToString())
    skad.load(file)  # the checksum is the last entry still
    del model.metadata_props[:]
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="no file that skad"):
        skad.load(file)
    file.write_bytes(with_checksum(model.SerializeToString()))
    with pytest.raises(ValueError, match="header is not what skad writes"):
        skad.load(file)
    with pytest.raises(FileNotFoundError):
        skad.load(file.with_name("other.onnx"))
    (file.parent / "folder.onnx").mkdir()
    with pytest.raises(OSError, match="no regular file"):
        skad.load(file.parent / "folder.onnx")


def rewritten(file, **changes):
    """Write another header into a file, as another version or a stranger would."""
    import onnx

    model = onnx.load(file)
    content = json.loads(model.metadata_props[0].value)
    del model.metadata_props[:]
    model.metadata_props.add(key="skad", value=json.dumps({**content, **changes}))
    file.write_bytes(with_checksum(model.SerializeToString()))
    return file


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": 3}, "it has format 3, and this skad"),
        ({"format": 2, "versions": None}, "header is not what skad writes"),
        ({"thresholds": {}}, "header is not what skad writes"),
        (
            {"geometry": {"mode": "warp", "image_size": 32, "resize": None}},
            "geometry must be one of",
        ),
        ({"roi": {"shape": [4, 4], "bits": "AAAA"}}, "header is not what skad writes"),
    ],
)
def test_headers_that_make_no_sense_are_refused(file, changes, named):
    with pytest.raises(ValueError, match=named):
        skad.load(rewritten(file, **changes))


def test_another_version_is_told(file):
    with pytest.warns(UserWarning, match=r"written by skad 0\.0\.1"):
        skad.load(rewritten(file, versions={"skad": "0.0.1"}))


def test_providers_are_checked(file, tmp_path):
    line = skad.load(file, providers=["CPUExecutionProvider"], n_threads=1)
    assert line.providers_ == ["CPUExecutionProvider"]
    with pytest.raises(ValueError, match=r"providers=\['NoSuchProvider'\]"):
        skad.load(file, providers=["NoSuchProvider"])
    with pytest.raises(ValueError, match="for files of export_onnx"):
        skad.load(tmp_path / "det.skad", n_threads=1)
    with pytest.raises(ValueError, match=r"must end in '\.skad' or '\.onnx'"):
        skad.load(tmp_path / "det.pkl")


def test_it_can_be_sent_to_workers(line):
    line.calibrate(target_false_alarm_rate=0.4)
    copied = pickle.loads(pickle.dumps(line))
    assert copied.offset_ == line.offset_
    np.testing.assert_array_equal(
        copied.score_samples(varied_defects()), line.score_samples(varied_defects())
    )
    assert "line3.onnx" in repr(line)
