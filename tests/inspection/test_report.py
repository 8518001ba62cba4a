"""The report: its figures and pictures, what it accepts, and what it holds in memory."""

import os
import re
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_detector, make_recontrast
from page_reader import PageReader
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import skad
from skad import PatchCoreDetector, ScoreFusionDetector
from skad.metrics import aupro, average_precision, discriminability, image_auroc, pixel_auroc

pytest.importorskip("matplotlib")
from skad.inspection import HeatmapDisplay, report
from skad.inspection._report_content import Findings, choose


@pytest.fixture(scope="module")
def det(good):
    return make_detector(image_size=96, smoothing=2).fit(good)


@pytest.fixture(scope="module")
def labelled(good, defective):
    rng = np.random.default_rng(1)
    unseen = np.clip(good + rng.normal(0, 8, good.shape), 0, 255).astype(np.uint8)[:6]
    X, y = np.concatenate([unseen, defective]), np.repeat([1, -1], [6, 4])
    mask = np.zeros((40, 48), dtype=np.uint8)
    mask[8:20, 30:42] = 255
    return X, y, [None] * 6 + [mask] * 4


@pytest.fixture(scope="module")
def page(det, labelled, tmp_path_factory):
    """The page of all that is labelled, with masks."""
    given = tmp_path_factory.mktemp("page") / "r.html"
    path = report(det, *labelled, path=given, title="Line 3")
    assert path == given
    return PageReader(path)


@pytest.fixture
def unrendered(monkeypatch):
    """Figures are made but not rendered, for tests that do not look at the pictures."""
    file = BytesIO()
    Image.new("L", (1, 1)).save(file, format="png")
    monkeypatch.setattr("skad.inspection._report.as_png", lambda figure, dpi=100: file.getvalue())


def test_figures_are_those_of_the_metrics(det, labelled, page):
    X, y, masks = labelled
    maps, scores = det.predict_heatmap(X, return_scores=True)
    truth = [np.zeros((40, 48)) if mask is None else mask for mask in masks]
    called = scores < det.offset_
    assert page.rows["images"] == "10 (6 good, 4 defective)"
    assert page.rows["image AUROC"] == f"{image_auroc(y, scores):.4f}"
    assert page.rows["average precision"] == f"{average_precision(y, scores):.4f}"
    assert page.rows["d'"] == f"{discriminability(scores[y == 1], scores[y == -1]):.2f}"
    assert page.rows["false-alarm rate"].startswith(f"{called[:6].sum()} of 6 good images (")
    assert page.rows["detection rate"] == "4 of 4 defective images (100.0 %)"
    assert float(page.rows["pixel AUROC"]) == pytest.approx(pixel_auroc(truth, maps), abs=2e-4)
    assert float(page.rows["AUPRO (up to 30 % false positives)"]) == pytest.approx(
        aupro(truth, maps), abs=2e-3
    )
    assert page.rows["threshold on score_samples (offset_)"] == f"{det.offset_:.4g}"
    assert page.rows["threshold on heat maps"] == f"{det.heatmap_threshold_:.4g}"
    assert page.rows["target false-alarm rate"] == "20 %"
    assert page.rows["image_size"] == "96"
    assert page.rows["backbone"] == "'skad_nano'"
    assert page.rows["skad"] == skad.__version__
    assert page.rows["torch"] == torch.__version__
    assert "Line 3" in page.text
    assert re.search(r"Written on \d\d \w+ \d{4}, \d\d:\d\d", page.text)


def test_shows_what_was_chosen(det, labelled, page):
    X, y, _ = labelled
    choices = choose(Findings(det, det.score_samples(X), y, None), 6)
    assert page.headings[2:-2] == [choice.title for choice in choices]
    assert page.captions == [f"image {i}" for choice in choices for i in choice.indices]
    assert all(choice.text in page.text for choice in choices)
    # One picture per caption, and the histogram and the scale.
    assert len(page.pictures) == len(page.captions) + 2
    assert all(min(picture.size) > 20 for picture in page.pictures)
    assert "ground truth" in page.text


def test_regions_are_listed_where_there_are_some(det, labelled, page):
    X, y, _ = labelled
    choices = choose(Findings(det, det.score_samples(X), y, None), 6)
    shown = det.predict_regions([X[i] for choice in choices for i in choice.indices])
    assert page.tags.count("li") == sum(map(len, shown)) > 0
    assert page.tags.count("ol") == sum(map(bool, shown))
    peaks = [f"peak {region.peak:.3g}" for found in shown for region in found]
    assert all(peak in page.text for peak in peaks)


def test_without_labels(det, labelled, tmp_path):
    X, _, _ = labelled
    page = PageReader(report(det, X, path=tmp_path / "r.html", n_examples=2))
    scores = det.score_samples(X)
    assert page.captions == [f"image {i}" for i in np.argsort(scores)[:2]]
    assert page.headings[2] == "Most anomalous images"
    assert page.rows["called defective"].startswith(f"{np.sum(scores < det.offset_)} of 10 images")
    assert "ground truth" not in page.text


@pytest.mark.usefixtures("unrendered")
def test_masks_without_labels(det, labelled, tmp_path):
    X, _, masks = labelled
    page = PageReader(report(det, X, masks=masks, path=tmp_path / "r.html", n_examples=1))
    assert float(page.rows["pixel AUROC"]) > 0.5
    assert "Orange: ground truth" in page.text


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("form", ["column", "folders"])
def test_forms_of_masks(det, labelled, page, tmp_path, form):
    """A column of a table, NaN in it; folders of several masks, as in MVTec LOCO AD."""
    X, y, masks = labelled
    given = pd.Series([np.nan if mask is None else mask for mask in masks], index=range(20, 30))
    if form == "folders":
        given = [None if mask is None else tmp_path / str(i) for i, mask in enumerate(masks)]
        for i in range(6, 10):
            given[i].mkdir()
            for rows in (slice(0, 12), slice(12, 40)):
                part = np.zeros_like(masks[i])
                part[rows] = masks[i][rows]
                Image.fromarray(part).save(given[i] / f"{rows.start}.png")
    read = PageReader(report(det, X, y, given, path=tmp_path / "r.html", n_examples=1))
    assert read.rows == page.rows
    display = HeatmapDisplay.from_estimator(det, X[5:7], masks=given[5:7])
    assert [np.sum(mask) for mask in display.masks if mask is not None] == [144]


@pytest.fixture
def files(labelled, tmp_path):
    """Images and masks as files, with names that are not harmless in HTML."""
    X, y, masks = labelled
    paths, truth = [], []
    for i, (image, mask) in enumerate(zip(X, masks, strict=True)):
        folder = tmp_path / ("good" if y[i] == 1 else "<b>scratch&")
        folder.mkdir(exist_ok=True)
        paths.append(folder / f"{i}\"'<script>.png")
        Image.fromarray(image).save(paths[-1])
        truth.append(None if mask is None else folder / f"{i}_mask.png")
        if mask is not None:
            Image.fromarray(mask).save(truth[-1])
    return paths, y, truth


@pytest.mark.usefixtures("unrendered")
def test_names_of_files_are_escaped(det, files, page, tmp_path):
    title = "<script>alert(1)</script>"
    named = PageReader(report(det, *files, path=tmp_path / "r.html", title=title, n_examples=1))
    assert "script" not in named.tags
    assert named.captions[-1].startswith("image ")
    assert named.captions[-1].endswith("\"'<script>.png")
    assert ": <b>scratch&/" in named.captions[-1]
    assert title in named.text
    assert named.rows == page.rows  # those of the same images as arrays


@pytest.mark.usefixtures("unrendered")
def test_names_of_files_that_are_no_utf8(det, labelled, tmp_path):
    """They come from old cameras and foreign disks; a report on them must not fail in the end."""
    folder = os.fsencode(tmp_path) + b"/na\xefve"
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    paths = [os.fsdecode(folder + b"/caf\xe9_%d.png" % i) for i in range(2)]
    for path, image in zip(paths, labelled[0], strict=False):
        with open(path, "wb") as file:
            Image.fromarray(image).save(file, format="png")
    target = Path(os.fsdecode(folder)) / os.fsdecode(b"r\xe9sum\xe9.html")
    page = PageReader(report(det, paths, path=target, title=f"about {paths[0]}"))
    assert sorted(caption.partition(": ")[2] for caption in page.captions) == [
        r"na\xefve/caf\xe9_0.png",
        r"na\xefve/caf\xe9_1.png",
    ]
    assert page.text.count(r"caf\xe9_0.png") == 3  # head, title and caption
    assert any(alt.startswith("image 0: na") for alt in page.alts)


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("form", [tuple, np.array, pd.Series, "table", "tensor"])
def test_every_form_of_images(form, det, files, labelled, tmp_path):
    paths, X = [str(path) for path in files[0]], labelled[0]
    given = {"table": X[..., 0].reshape(len(X), -1), "tensor": torch.from_numpy(X)}.get(form)
    if form == "table":
        det = make_detector(image_shape=(40, 48)).fit(given[:6])
    elif given is None:
        given = form(paths)
        if form is pd.Series:
            given.index = range(50, 60)
    page = PageReader(report(det, given, files[1], path=tmp_path / "r.html", n_examples=1))
    scores = det.score_samples(given)
    assert page.rows["image AUROC"] == f"{image_auroc(files[1], scores):.4f}"
    names = page.captions[0].partition(": ")[2]
    assert names.endswith(".png") == (form not in ("table", "tensor"))


def shallow_copy(det):
    copy = object.__new__(type(det))
    copy.__dict__.update(det.__dict__)
    return copy


@pytest.mark.usefixtures("unrendered")
def test_other_detectors(good, labelled, tmp_path):
    X, y, masks = labelled
    members = [("a", make_detector()), ("b", make_detector(layers=(2,)))]
    detectors = [
        ScoreFusionDetector(members, target_false_alarm_rate=0.2),
        make_recontrast(max_iter=1),
        make_pipeline(FunctionTransformer(lambda X: X[:, 2:-2]), make_detector()),
    ]
    cut = [None if mask is None else mask[2:-2] for mask in masks]
    for detector, truth in zip(detectors, (masks, masks, cut), strict=True):
        path = report(detector.fit(good), X, y, truth, path=tmp_path / "r.html", n_examples=1)
        page = PageReader(path)
        auroc = image_auroc(y, detector.score_samples(X))
        assert page.rows["image AUROC"] == f"{auroc:.4f}"
    assert page.rows["patchcoredetector__image_size"] == "32"
    assert page.rows["patchcoredetector"] == "PatchCoreDetector"


@pytest.mark.usefixtures("unrendered")
def test_only_a_few_images_at_a_time(det, labelled, page, tmp_path, monkeypatch):
    X, y, masks = labelled
    asked = []
    iter_maps = PatchCoreDetector._iter_maps

    def spy(self, X):
        asked.append(len(X))
        return iter_maps(self, X)

    monkeypatch.setattr(PatchCoreDetector, "_iter_maps", spy)
    many = np.concatenate([X] * 5)
    path = report(det, many, np.tile(y, 5), masks * 5, path=tmp_path / "r.html", n_examples=1)
    assert asked == [16, 16, 16, 2, 2]  # all images, and those that are shown
    for figure in ("image AUROC", "pixel AUROC"):
        assert PageReader(path).rows[figure] == page.rows[figure]


@pytest.mark.parametrize("with_masks", [True, False])
def test_few_images_are_looked_at_once(det, labelled, tmp_path, monkeypatch, with_masks):
    """If all of them may be shown, files are decoded once; the pictures are the same."""
    Image.fromarray(labelled[0][9]).save(tmp_path / "9.png")
    X, y = [*labelled[0][:2], tmp_path / "9.png"], labelled[1][[0, 1, 9]]
    masks = [None, None, labelled[2][9]] if with_masks else None
    det = shallow_copy(det)
    det.offset_ = det.score_samples(X[:2]).mean()  # one false alarm: two pictures either way
    twice = PageReader(report(det, X, y, masks, path=tmp_path / "twice.html", n_examples=1))
    asked = []
    for name in ("_iter_maps", "score_samples"):
        original = getattr(PatchCoreDetector, name)

        def spy(self, X, *args, original=original, **kwargs):
            asked.append([type(item) for item in X])
            return original(self, X, *args, **kwargs)

        monkeypatch.setattr(PatchCoreDetector, name, spy)
    once = PageReader(report(det, X, y, masks, path=tmp_path / "once.html", n_examples=2))
    # Already decoded, for the scores as for the pictures.
    assert asked == [[np.ndarray] * 3]
    assert len(once.captions) == 2
    assert once.rows == twice.rows
    assert once.captions == twice.captions
    for one, other in zip(once.pictures, twice.pictures, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.usefixtures("unrendered")
def test_progress_of_a_verbose_detector(det, labelled, tmp_path, capsys):
    det = shallow_copy(det)
    report(det, labelled[0][:1], path=tmp_path / "r.html")
    assert capsys.readouterr().err == ""
    det.verbose = 1
    report(det, labelled[0][:2], path=tmp_path / "r.html", n_examples=1)
    assert "[PatchCoreDetector] report: 2 in " in capsys.readouterr().err


def test_errors_before_any_work(det, labelled, tmp_path, monkeypatch):
    X, y, masks = labelled
    path = tmp_path / "r.html"
    with pytest.raises(NotFittedError):
        report(make_detector(), X, path=path)

    def work(*args, **kwargs):
        raise AssertionError("scored before all was checked")

    monkeypatch.setattr(PatchCoreDetector, "score_samples", work)
    monkeypatch.setattr(PatchCoreDetector, "_iter_maps", work)
    for message, arguments in {
        "y has 3 labels for 10 images": (X, y[:3]),
        r"y holds \[0, 1\]: labels must be \+1": (X, np.where(y == -1, 0, y)),
        "9 masks for 10 images": (X, y, masks[1:]),
        r"image 9 is labelled -1 \(defective\) but has no mask": (X, y, [*masks[:9], None]),
        r"nothing\.png": (["nothing.png"] * 2,),
    }.items():
        with pytest.raises(ValueError, match=message):
            report(det, *arguments, path=path)
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        report(det, X, path=tmp_path / "absent" / "r.html")
    with pytest.raises(IsADirectoryError, match="name a file in it"):
        report(det, X, path=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"mask 9: the file 'no\.png' does not exist"):
        report(det, X, y, [*masks[:9], "no.png"], path=path)
    with pytest.raises(ValueError, match="n_examples=0 must be at least 1"):
        report(det, X, path=path, n_examples=0)
    assert not path.exists()


def test_images_are_named_by_their_place_in_x(det, files, tmp_path):
    """Although images are scored in portions."""
    paths = files[0] * 3
    broken = tmp_path / "broken.png"
    shutil.copy(paths[0], broken)
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"image 25 \(.*broken\.png"):
        report(det, [*paths[:25], broken], path=tmp_path / "r.html")
