"""Images beside their heat maps: what is drawn, not how it looks."""

import numpy as np
import pytest
from conftest import make_detector
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skad import ScoreFusionDetector
from skad.exceptions import ImageFileWarning, TabularDataWarning

pytest.importorskip("matplotlib")
from skad.inspection import HeatmapDisplay


@pytest.fixture(scope="module")
def det(good):
    return make_detector().fit(good)


def test_one_row_per_image(good, defective):
    det = make_detector(image_size=96, smoothing=2).fit(good)
    mask = np.zeros((40, 48))
    mask[8:20, 30:42] = 1
    X = [defective[0], good[0]]
    display = HeatmapDisplay.from_estimator(det, X, masks=[mask, None])
    assert display.axes_.shape == (2, 3)
    assert display.axes_[0, 0].get_title().startswith("defective")
    assert display.axes_[1, 0].get_title().startswith("good")
    # The defective image is outlined twice: truth and finding; the good one not at all.
    assert len(display.axes_[0, 2].collections) == 2
    assert len(display.axes_[1, 2].collections) == 0


@pytest.mark.parametrize("rank", [1, 4])
def test_outlined_exactly_if_defective(good, defective, rank):
    det = make_detector().fit(good)
    X = [*defective, *good[:4], defective[0][:36], np.repeat(defective[1], 30, axis=1)]
    det.offset_ = float(np.sort(det.score_samples(X))[rank])
    det.heatmap_threshold_ = -det.offset_
    display = HeatmapDisplay.from_estimator(det, X)
    outlined = [len(axes[2].collections) == 1 for axes in display.axes_]
    assert outlined == (det.predict(X) == -1).tolist()
    assert sum(outlined) == rank


def test_regions_that_were_found_before(good, defective):
    det = make_detector().fit(good)
    regions = det.predict_regions(defective[:1])
    heatmaps, threshold = det.predict_heatmap(defective[:1]), det.heatmap_threshold_
    display = HeatmapDisplay.from_predictions(
        defective[:1], heatmaps, threshold=threshold, regions=regions
    )
    (outlines,) = display.axes_[0, 2].collections
    vertices = np.concatenate([path.vertices for path in outlines.get_paths()])
    boxes = np.array([region.box for region in regions[0]])
    assert vertices.min(axis=0).tolist() == [boxes[:, 1].min() - 0.5, boxes[:, 0].min() - 0.5]
    assert vertices.max(axis=0).tolist() == [boxes[:, 3].max() - 0.5, boxes[:, 2].max() - 0.5]
    with pytest.raises(ValueError, match="1 lists of regions for 2 images"):
        HeatmapDisplay.from_predictions(
            good[:2], np.zeros((2, 40, 48)), threshold=1.0, regions=regions
        )


def test_pixels_outside_the_crop_do_no_harm(good, defective):
    det = make_detector(geometry="crop", image_size=32, resize=36).fit(good)
    display = HeatmapDisplay.from_estimator(det, defective[:1])
    low, high = display.axes_[0, 1].images[0].get_clim()
    assert np.isfinite([low, high]).all()


def test_from_predictions(good):
    maps = np.zeros((2, 40, 48))
    display = HeatmapDisplay.from_predictions(good[:2], maps, threshold=1.0, titles=["a", "b"])
    assert [axes[0].get_title() for axes in display.axes_] == ["a", "b"]


def test_star_outline_and_colour_bar(good):
    heatmap = np.zeros((40, 48))
    heatmap[10:20, 30:40] = 2.0
    heatmap[12, 33] = 3.0
    heatmap[0, :5] = np.nan
    display = HeatmapDisplay.from_predictions(good[:1], [heatmap], threshold=1.0)
    (star,) = display.axes_[0, 2].lines
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (33, 12)
    edge, outline = display.axes_[0, 2].collections
    x, y = outline.get_paths()[0].vertices.T
    assert (x.min(), x.max(), y.min(), y.max()) == (29.5, 39.5, 9.5, 19.5)
    x, y = edge.get_paths()[0].vertices.T
    assert (x.max(), y.max()) == (4.5, 0.5)
    (mark,) = display.colorbar_.ax.lines
    assert list(mark.get_ydata()) == [1.0, 1.0]
    texts = [text.get_text() for text in display.figure_.legends[0].get_texts()]
    assert texts == ["above 1", "highest pixel", "edge of what is looked at"]


def test_one_scale_for_all_maps(good):
    maps = np.stack([np.full((40, 48), 1.0), np.full((40, 48), 2.0)])

    def limits(**options):
        display = HeatmapDisplay.from_predictions(good[:2], maps, threshold=5.0, **options)
        return [axes[1].images[0].get_clim() for axes in display.axes_]

    # The threshold lies on it too: maps that stay far below it do not glow.
    assert limits() == [(1.0, 5.0)] * 2
    assert limits(vmin=0.0, vmax=3.0) == [(0.0, 3.0)] * 2


def test_titles_do_not_overlap(good):
    """No text touches another, whatever the length of the titles and the shape of the images."""
    X = [good[0], good[0][:, :12], good[0][:9]]
    maps = [np.zeros(image.shape[:2]) for image in X]
    titles = ["a title that is far too long for the panel below it " * 2, "short", "two\nlines"]
    display = HeatmapDisplay.from_predictions(X, maps, threshold=1.0, titles=titles)
    display.figure_.canvas.draw()
    shown = [axis for axis in display.axes_.ravel() if axis.get_title()]
    boxes = [axis.title.get_window_extent() for axis in shown]
    boxes += [axis.get_window_extent() for axis in display.axes_.ravel()]
    boxes += [display.figure_.legends[0].get_window_extent()]
    for i, box in enumerate(boxes):
        assert not any(box.shrunk(0.99, 0.99).overlaps(other) for other in boxes[i + 1 :])


def test_through_a_pipeline(good, defective):
    alone = make_detector().fit(good[:, 2:-2])
    pipeline = make_pipeline(FunctionTransformer(lambda X: X[:, 2:-2]), make_detector()).fit(good)
    display = HeatmapDisplay.from_estimator(pipeline, defective[:2])
    np.testing.assert_array_equal(display.heatmaps, alone.predict_heatmap(defective[:2, 2:-2]))
    np.testing.assert_array_equal(display.images[0], defective[0, 2:-2])
    assert display.threshold == alone.heatmap_threshold_


def test_of_an_ensemble(good, defective):
    members = [("a", make_detector()), ("b", make_detector(layers=(2,)))]
    fusion = ScoreFusionDetector(members, target_false_alarm_rate=0.2).fit(good)
    display = HeatmapDisplay.from_estimator(fusion, defective[:1])
    np.testing.assert_array_equal(display.heatmaps, fusion.predict_heatmap(defective[:1]))


def test_rows_of_a_table(good):
    """The detector knows the shape of its images; without one a row is a strip, which has no outline."""
    rows = good[..., 0].reshape(len(good), -1)
    det = make_detector(image_shape=(40, 48)).fit(rows)
    assert HeatmapDisplay.from_estimator(det, rows[:2]).images[0].shape == (40, 48, 3)
    with pytest.warns(TabularDataWarning, match="one pixel high"):
        strips = make_detector().fit(rows)
    assert HeatmapDisplay.from_estimator(strips, rows[:1]).images[0].shape[0] == 1


def test_masks_may_be_files(good, tmp_path):
    mask = np.zeros((40, 48), dtype=np.uint8)
    mask[3:9, 3:9] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    display = HeatmapDisplay.from_predictions(
        good[:1], np.zeros((1, 40, 48)), threshold=1.0, masks=[tmp_path / "mask.png"]
    )
    assert display.masks[0].sum() == 36
    assert len(display.axes_[0, 2].collections) == 1


def test_masks_in_one_array(good):
    masks = np.zeros((2, 40, 48))
    display = HeatmapDisplay.from_predictions(good[:2], masks, threshold=1.0, masks=masks)
    assert len(display.masks) == 2


@pytest.mark.parametrize("with_images_of_other_sizes", [True, False])
def test_one_warning_for_further_pages(det, good, tmp_path, with_images_of_other_sizes):
    pages = [Image.fromarray(image) for image in good[:2]]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "b.gif", save_all=True, append_images=pages[1:])
    X = [tmp_path / "a.tif", tmp_path / "b.gif"]
    if with_images_of_other_sizes:
        X.append(good[0, :36])
    with pytest.warns(ImageFileWarning, match=r"a\.tif'\) with 2, and 1 other file") as seen:
        HeatmapDisplay.from_estimator(det, X)
    assert len(seen) == 1


def test_small_files_are_named(det, good, tmp_path):
    Image.fromarray(good[0, :5]).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"image 1 \('.*small\.png'\): is 5 x 48"):
        HeatmapDisplay.from_estimator(det, [good[0], tmp_path / "small.png"])


def test_made_directly(good):
    display = HeatmapDisplay(good[:1], [np.zeros((40, 48)).tolist()], 1.0).plot()
    assert display.axes_.shape == (1, 3)
    for wrong, message in (
        ({"masks": [None, None]}, "2 masks for 1 images"),
        ({"titles": ["a", "b"]}, "2 titles for 1 images"),
        ({"masks": [np.zeros((4, 4))]}, "mask 0 has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            HeatmapDisplay(good[:1], [np.zeros((40, 48))], 1.0, **wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heatmaps": np.zeros((1, 40, 48))}, "1 heat maps for 2 images"),
        ({"titles": ["a"]}, "1 titles for 2 images"),
        ({"masks": [None] * 3}, "3 masks for 2 images"),
        (
            {"masks": [None, np.zeros((4, 4))]},
            r"mask 1 has shape \(4, 4\), its heat map \(40, 48\)",
        ),
        (
            {"heatmaps": [np.zeros((40, 48)), np.full((40, 48), np.nan)]},
            "heat map 1 holds only NaN",
        ),
        (
            {"heatmaps": [np.zeros((40, 48)), np.zeros((20, 24))]},
            r"image 1 has shape \(40, 48\), its heat map \(20, 24\)",
        ),
    ],
)
def test_what_does_not_belong_together(good, options, message):
    with pytest.raises(ValueError, match=message):
        HeatmapDisplay.from_predictions(
            good[:2], **{"heatmaps": np.zeros((2, 40, 48)), "threshold": 1.0, **options}
        )


def test_estimators_without_heat_maps(good):
    with pytest.raises(NotFittedError):
        HeatmapDisplay.from_estimator(make_detector(), good)
    with pytest.raises(TypeError, match="FunctionTransformer has no method 'predict_heatmap'"):
        HeatmapDisplay.from_estimator(make_pipeline(FunctionTransformer()), good)
