"""Weights inside a detector's own file: saving over it never loses them."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import make_detector, make_recontrast
from safetensors.torch import load_file, save_file

import skad
from skad._features import backbones

BUNDLED = next(Path(skad.__file__).parent.rglob("skad_nano*.safetensors"))


def forget_backbones():
    """As in another process."""
    backbones._alive.clear()
    backbones._latest.clear()


@pytest.fixture
def own(tmp_path):
    """File with weights that this machine has nowhere else."""
    return own_weights(tmp_path)


def own_weights(folder):
    path = folder / "mine.safetensors"
    tensors = load_file(BUNDLED)
    save_file({name: t * 1.01 if t.ndim == 4 else t for name, t in tensors.items()}, path)
    return path


def fusion_of(weights):
    members = [
        ("a", make_detector(weights=weights)),
        ("b", make_detector(weights=weights, n_neighbors=2)),
    ]
    return skad.ScoreFusionDetector(members, target_false_alarm_rate=0.2)


@pytest.fixture(scope="module", params=["patchcore", "recontrast", "fusion"])
def saved(request, good, tmp_path_factory):
    """What a file holds, a detector and its backbone, and expected scores: fitted once for all tests."""
    folder = tmp_path_factory.mktemp("own")
    own = own_weights(folder)
    make = {"patchcore": make_detector, "recontrast": make_recontrast, "fusion": fusion_of}
    params = {"max_iter": 1} if request.param == "recontrast" else {}
    detector = make[request.param](weights=own, **params).fit(good)
    skad.save(detector, folder / "line.skad", include_backbone=True)
    expected = detector.score_samples(good)
    content = (folder / "line.skad").read_bytes()
    shutil.rmtree(folder)
    return content, expected


@pytest.fixture
def line(saved, tmp_path):
    """A file that holds a detector and its backbone, which is nowhere else, and expected scores."""
    content, expected = saved
    forget_backbones()
    (tmp_path / "line.skad").write_bytes(content)
    return tmp_path / "line.skad", expected


def scores(path, good):
    forget_backbones()
    return skad.load(path).score_samples(good)


def as_it_is(path):
    return path


def relative(path):
    return Path(os.path.relpath(path))


def through_a_link(path):
    link = path.with_name("link.skad")
    link.symlink_to(path)
    return link


def other_folder(path):
    (path.parent / "x").mkdir()
    return path.parent / "x" / ".." / path.name


@pytest.mark.parametrize("way", [as_it_is, relative, through_a_link, other_folder])
def test_saving_over_it(line, good, way):
    path, expected = line
    loaded = skad.load(path)
    skad.save(loaded, way(path))
    np.testing.assert_array_equal(scores(path, good), expected)
    np.testing.assert_array_equal(loaded.score_samples(good), expected)


@pytest.mark.parametrize("way", [relative, through_a_link, other_folder])
def test_it_is_found_from_another_folder(line, good, tmp_path, monkeypatch, way):
    """By the name that was given, whatever the working folder is when it first scores."""
    path, expected = line
    given = way(path)
    (tmp_path / "elsewhere").mkdir()
    forget_backbones()
    loaded = skad.load(given)
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(loaded.score_samples(good), expected)
    copied = pickle.loads(pickle.dumps(loaded))
    forget_backbones()
    np.testing.assert_array_equal(copied.score_samples(good), expected)


def test_a_transformer_brings_its_final_norm(good, tmp_path):
    params = {"image_size": 32, "layers": "auto", "patch_size": "auto", "coreset_size": 10}
    detector = make_detector(backbone="deit_tiny_patch16_224", weights=None, **params).fit(good)
    assert detector.feature_spec_.normalize
    skad.save(detector, tmp_path / "line.skad", include_backbone=True)
    loaded = skad.load(tmp_path / "line.skad")
    assert loaded.weights == str(tmp_path / "line.skad")
    np.testing.assert_array_equal(loaded.score_samples(good), detector.score_samples(good))


def test_under_another_name_it_stays_where_it_was(line, good, tmp_path):
    path, expected = line
    skad.save(skad.load(path), tmp_path / "other.skad")
    assert (tmp_path / "other.skad").stat().st_size < path.stat().st_size
    np.testing.assert_array_equal(scores(tmp_path / "other.skad", good), expected)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        scores(tmp_path / "other.skad", good)


def test_a_hard_link(line, good, tmp_path):
    path, expected = line
    os.link(path, tmp_path / "hard.skad")
    skad.save(skad.load(path), tmp_path / "hard.skad")
    for name in ("line.skad", "hard.skad"):
        np.testing.assert_array_equal(scores(tmp_path / name, good), expected)


def test_weights_that_are_no_detector_are_not_replaced(own, good, tmp_path):
    """A link named .skad leads to the weights themselves."""
    detector = make_detector(weights=own).fit(good)
    before = own.read_bytes()
    (tmp_path / "line.skad").symlink_to(own)
    with pytest.raises(ValueError, match="would be lost: save it elsewhere"):
        skad.save(detector, tmp_path / "line.skad")
    assert own.read_bytes() == before


def test_one_of_several_backbones_is_not_replaced(own, good, tmp_path):
    skad.save(make_detector(weights=own).fit(good), tmp_path / "a.skad", include_backbone=True)
    before = (tmp_path / "a.skad").read_bytes()
    inside = make_detector(weights=tmp_path / "a.skad")
    both = skad.ScoreFusionDetector(
        [("a", inside), ("b", make_detector())], target_false_alarm_rate=0.2
    ).fit(good)
    with pytest.raises(ValueError, match="one backbone per file"):
        skad.save(both, tmp_path / "a.skad")
    assert (tmp_path / "a.skad").read_bytes() == before


def test_other_weights_than_those_of_the_fit_are_not_written(own, good, tmp_path):
    detector = make_detector(weights=own).fit(good).set_params(weights="pretrained")
    with pytest.raises(ValueError, match="not those this detector was fitted with"):
        skad.save(detector, tmp_path / "line.skad", include_backbone=True)
    assert not (tmp_path / "line.skad").exists()


def test_parameters_of_a_loaded_member_can_be_set(own, good, tmp_path):
    detector = fusion_of(own).fit(good)
    skad.save(detector, tmp_path / "line.skad", include_backbone=True)
    expected = detector.score_samples(good)
    own.unlink()
    forget_backbones()
    loaded = skad.load(tmp_path / "line.skad").set_params(a__batch_size=3)
    np.testing.assert_array_equal(loaded.score_samples(good), expected)
