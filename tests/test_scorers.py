"""Scorers on bare detectors, in pipelines and in searches that unwrapped masks."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from conftest import make_detector
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skad.inspection import HeatmapDisplay, PixelRocDisplay, report
from skad.metrics import aupro, discriminability, pixel_auroc
from skad.model_selection import (
    HeatmapScorer,
    OneClassKFold,
    aupro_scorer,
    average_precision_scorer,
    discriminability_scorer,
    image_auroc_scorer,
    pixel_auroc_scorer,
)
from skad.model_selection._scorers import as_mask, list_masks


@pytest.fixture(scope="module")
def data(good, defective):
    X = np.concatenate([good, defective])
    y = np.repeat([1, -1], [len(good), len(defective)])
    mask = np.zeros((40, 48), dtype=np.uint8)
    mask[8:20, 30:42] = 255
    return X, y, [None] * len(good) + [mask] * len(defective)


@pytest.fixture(scope="module")
def fitted(good):
    return make_detector(image_size=64).fit(good)


def truth(masks):
    return [np.zeros((40, 48)) if mask is None else mask for mask in masks]


def test_image_scorers(fitted, data):
    X, y, _ = data
    noisy = np.where(np.arange(len(y)) % 5 == 0, -y, y)
    normality = fitted.score_samples(X)
    assert image_auroc_scorer(fitted, X, noisy) == roc_auc_score(noisy, normality)
    expected = average_precision_score(noisy == -1, -normality)
    assert average_precision_scorer(fitted, X, noisy) == expected
    assert expected != average_precision_score(noisy, normality)


def test_discriminability_scorer_has_a_sign(fitted, data):
    """d' itself has none: a search would take what finds the good images for the best."""
    X, y, _ = data
    scores = fitted.score_samples(X)
    expected = discriminability(scores[y == 1], scores[y == -1])
    assert expected > 0
    assert discriminability_scorer(fitted, X, y) == pytest.approx(expected)
    assert discriminability_scorer(fitted, X, -y) == pytest.approx(-expected)


def test_heat_map_scorers(fitted, data):
    X, y, masks = data
    heatmaps = fitted.predict_heatmap(X)
    assert pixel_auroc_scorer(fitted, X, y, masks=masks) == pixel_auroc(truth(masks), heatmaps)
    assert aupro_scorer(fitted, X, y, masks=masks) == aupro(truth(masks), heatmaps)


def test_last_step_of_a_pipeline(fitted, data):
    X, y, masks = data
    cut = make_pipeline(FunctionTransformer(lambda images: images[:, 2:]), fitted)
    cut_masks = [None if mask is None else mask[2:] for mask in masks]
    expected = pixel_auroc_scorer(fitted, X[:, 2:], y, masks=cut_masks)
    assert pixel_auroc_scorer(cut, X, y, masks=cut_masks) == expected
    assert aupro_scorer(make_pipeline(fitted), X, y, masks=masks) > 0.5


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_searches_route_masks(data, in_pipeline):
    X, y, masks = data
    detector, name, values = make_detector(image_size=64), "n_neighbors", [1, 3]
    if in_pipeline:
        detector = make_pipeline(FunctionTransformer(), detector)
        name, values = "patchcoredetector__n_neighbors", [1]
    scoring = {"image": "roc_auc", "precision": average_precision_scorer, "aupro": aupro_scorer}
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            detector, {name: values}, scoring=scoring, refit="aupro", cv=OneClassKFold(2)
        ).fit(X, y, masks=masks)
    results = search.cv_results_
    assert all(np.isfinite(results[f"mean_test_{metric}"]).all() for metric in scoring)
    assert results["mean_test_image"].min() == 1.0
    assert results["mean_test_aupro"].min() > 0.5
    assert aupro_scorer(search, X, y, masks=masks) > 0.5  # the best detector's heat maps


@pytest.mark.parametrize("name", ["masks", "truth"])
def test_one_metric(data, name):
    """Masks reach the scorer fold by fold, under whatever name it requests them."""
    X, y, masks = data
    scorer = pixel_auroc_scorer.set_score_request(masks=True if name == "masks" else name)
    with sklearn.config_context(enable_metadata_routing=True):
        found = cross_validate(
            make_detector(), X, y, scoring=scorer, cv=OneClassKFold(2), params={name: masks}
        )
    train, test = next(OneClassKFold(2).split(X, y))
    alone = make_detector().fit(X[train])
    expected = pixel_auroc_scorer(alone, X[test], y[test], masks=[masks[i] for i in test])
    assert found["test_score"][0] == expected


def test_what_does_not_do(fitted, data):
    X, y, masks = data
    with pytest.raises(ValueError, match=r"needs masks=.*enable_metadata_routing"):
        aupro_scorer(fitted, X, y)
    with pytest.raises(ValueError, match="1 masks for 16 images"):
        aupro_scorer(fitted, X, y, masks=[None])
    with pytest.raises(ValueError, match="image 12 is labelled -1"):
        aupro_scorer(fitted, X, y, masks=[None] * 16)
    with pytest.raises(ValueError, match=r"mask 12 has shape \(3, 3\)"):
        aupro_scorer(fitted, X, y, masks=masks[:-4] + [np.ones((3, 3))] * 4)
    with pytest.raises(TypeError, match="StandardScaler has no method 'predict_heatmap'"):
        aupro_scorer(sklearn.preprocessing.StandardScaler(), X, y, masks=masks)


def test_representation():
    assert repr(aupro_scorer) == "aupro_scorer"
    assert isinstance(aupro_scorer, HeatmapScorer)


# --------------------------------------------------------------------------- masks of a table


@pytest.fixture
def files(data, tmp_path):
    """Paths of masks, None for good images."""
    masks = data[2]
    Image.fromarray(masks[-1]).save(tmp_path / "mask.png")
    return [None if mask is None else str(tmp_path / "mask.png") for mask in masks]


def columns(files):
    """The column of a table, with each way in which a cell says that there is nothing."""
    index = range(len(files), 0, -1)
    text = pd.Series(files, index=index, dtype="string")
    return {
        "objects": pd.Series(files, index=index, dtype=object),
        "text": text,
        "frame": text.to_frame(),
        "NaN": pd.Series(files, index=index, dtype=object).fillna(np.nan),
        "empty": text.fillna(""),
        "array": np.array(files, dtype=object),
        "column": np.array(files, dtype=object)[:, None],
        "categories": text.astype("category"),
    }


def test_a_column_of_masks(fitted, data, files):
    X, y, masks = data
    for name, column in columns(files).items():
        assert list_masks(column) == files, name
    frame, expected = columns(files)["frame"], pixel_auroc_scorer(fitted, X, y, masks=masks)
    assert pixel_auroc_scorer(fitted, X, y, masks=frame) == expected
    assert pixel_auroc_scorer(fitted, X, y, masks=[f and Path(f) for f in files]) == expected


def test_a_column_of_masks_in_pictures(fitted, data, files, tmp_path):
    X, y, masks = data
    frame, rows = columns(files)["frame"], slice(len(X) - 6, len(X) - 2)
    expected = PixelRocDisplay.from_estimator(fitted, X, masks).roc_auc
    assert PixelRocDisplay.from_estimator(fitted, X, frame).roc_auc == expected
    for given, marked in ((frame.iloc[rows], [False, False, True, True]), ([""] * 4, [False] * 4)):
        display = HeatmapDisplay.from_estimator(fitted, X[rows], masks=given)
        assert [mask is not None for mask in display.masks] == marked
    page = report(fitted, X[rows], y[rows], frame[rows], tmp_path / "r.html", n_examples=1)
    assert "pixel AUROC" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("nothing", [None, np.nan, np.float32("nan"), pd.NA, pd.NaT, ""])
def test_a_cell_without_a_mask(nothing):
    mask = as_mask(nothing, (3, 4))
    assert mask.shape == (3, 4)
    assert not mask.any()
    assert list_masks([nothing, "m.png"]) == [None, "m.png"]


def test_a_defective_image_needs_a_mask_in_its_cell(fitted, data, files):
    X, y, _ = data
    for nothing in (np.nan, pd.NA, ""):
        masks = pd.Series([*files[:-1], nothing], dtype=object)
        with pytest.raises(ValueError, match=f"image {len(X) - 1} is labelled -1 .* no mask"):
            aupro_scorer(fitted, X, y, masks=masks)


@pytest.mark.parametrize("form", ["Pillow", "palette", "bytes", "file", "tensor", "path"])
def test_masks_of_any_form(form, tmp_path):
    truth = np.zeros((4, 6), bool)
    truth[1:3, 2:5] = True
    image = Image.fromarray(truth.astype(np.uint8) * 255)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    image.save(tmp_path / "m.png")
    palette = Image.fromarray((~truth).astype(np.uint8), mode="P")
    palette.putpalette([255, 255, 255, 0, 0, 0])
    given = {
        "Pillow": image,
        "palette": palette,
        "bytes": buffer.getvalue(),
        "file": buffer,
        "tensor": torch.from_numpy(truth),
        "path": tmp_path / "m.png",
    }[form]
    np.testing.assert_array_equal(as_mask(given, (4, 6)) != 0, truth)
