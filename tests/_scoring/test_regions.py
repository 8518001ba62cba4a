"""Regions above a threshold, carried from the canvas to the image."""

import json

import numpy as np
import pytest
from scipy.ndimage import label

from skad._images import Geometry
from skad._scoring.regions import Regions, regions_of

S = 32
GEOMETRIES = [
    Geometry("squash", S),
    Geometry("pad", S),
    Geometry("crop", S),
    Geometry("crop", S, S),
]
SIZES = [(1, 1), (1, 9), (9, 1), (20, 31), (32, 32), (33, 64), (90, 41), (203, 500), (700, 8)]


def canvas_of(geometry, shape, seed=0):
    """Few and small peaks; NaN outside the image."""
    canvas = np.full((S, S), np.nan)
    top, bottom, left, right = geometry.content(*shape)
    noise = np.random.default_rng(seed).random((S, S))
    canvas[top:bottom, left:right] = noise[top:bottom, left:right]
    return canvas


def looked_up(canvas, geometry, shape):
    """The canvas at the centre of each image pixel, by floating point: what `nearest` counts."""
    rows, columns = geometry.placement(*shape)
    image = np.full(shape, np.nan)
    at = []
    for side in (rows, columns):
        start, stop = side.content()
        position = (np.arange(side.length) + 0.5) * side.resized / side.length + side.offset
        at.append([
            min(int(np.floor(p + 1e-9)), stop - 1) if start <= p <= stop else -1 for p in position
        ])  # fmt: skip
    for i, r in enumerate(at[0]):
        for j, c in enumerate(at[1]):
            if r >= 0 and c >= 0:
                image[i, j] = canvas[r, c]
    return image


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_regions_cover_what_is_above_the_threshold(geometry, shape):
    canvas, threshold = canvas_of(geometry, shape), 0.85
    regions = Regions([regions_of(canvas, threshold, geometry, shape)], [shape])
    image = looked_up(canvas, geometry, shape)
    mask = regions.mask(0)
    above = image > threshold
    assert mask[above].all()
    # What is marked beyond that stands for components between the centres of pixels.
    assert (mask & ~above).sum() <= sum(region.area == 1 for region in regions[0])
    components, n = label(np.nan_to_num(canvas) > threshold, structure=np.ones((3, 3)))
    assert len(regions[0]) == n
    peaks = sorted((canvas[components == k].max() for k in range(1, n + 1)), reverse=True)
    assert [region.peak for region in regions[0]] == peaks


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (33, 64), (7, 8000), (8000, 31)], ids=str)
def test_one_pixel_above_is_a_region_wherever_it_is(geometry, shape):
    top, bottom, left, right = geometry.content(*shape)
    for row in range(top, bottom, 5):
        for column in range(left, right, 3):
            canvas = np.zeros((S, S))
            canvas[row, column] = 1.0
            (region,) = regions_of(canvas, 0.5, geometry, shape)
            assert region.area >= 1
            r0, c0, r1, c1 = region.box
            assert 0 <= r0 <= region.peak_at[0] < r1 <= shape[0]
            assert 0 <= c0 <= region.peak_at[1] < c1 <= shape[1]
            assert regions_of(canvas, 1.0, geometry, shape) == []


@pytest.mark.parametrize("shape", [(64, 96), (16, 20), (32, 32)], ids=str)
def test_figures_are_those_of_the_mask(shape):
    geometry = Geometry("squash", S)
    canvas = np.zeros((S, S))
    canvas[3:9, 4:14] = np.random.default_rng(0).uniform(2, 3, (6, 10))
    canvas[5:7, 6:9] = 0
    (region,) = regions_of(canvas, 1.0, geometry, shape)
    mask = Regions([[region]], [shape]).mask(0)
    rows, columns = np.nonzero(mask)
    values = looked_up(canvas, geometry, shape)
    assert region.area == mask.sum() == region.mask.sum()
    assert region.box == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    assert region.centroid == pytest.approx((rows.mean(), columns.mean()))
    assert region.mean == pytest.approx(values[mask].mean())
    assert region.fraction == mask.mean()
    assert region.peak == canvas.max()
    assert values[region.peak_at] == values[mask].max()
    corners = [(polygon - 0.5).tolist() for polygon in region.contour]
    assert len(corners) == (2 if shape != (16, 20) else len(corners))


def test_small_regions_are_left_out_by_their_area_in_the_image():
    canvas = np.zeros((S, S))
    canvas[2, 2], canvas[10:14, 10:14] = 3, 2
    shape = (2 * S, 3 * S)
    geometry = Geometry("squash", S)
    assert [r.area for r in regions_of(canvas, 1.0, geometry, shape)] == [6, 96]
    assert [r.area for r in regions_of(canvas, 1.0, geometry, shape, min_area=6)] == [6, 96]
    assert [r.area for r in regions_of(canvas, 1.0, geometry, shape, min_area=7)] == [96]


def test_nan_and_the_threshold_itself_are_not_above_it():
    canvas = np.full((S, S), 0.5)
    canvas[0] = np.nan
    assert regions_of(canvas, 0.5, Geometry("squash", S), (10, 10)) == []


# --------------------------------------------------------------------------- shapes


def line(height, half_width, at=16):
    """A blurred vertical line: triangular across, `height` above a level of 1."""
    across = np.clip(1 - np.abs(np.arange(S) - at) / (2 * half_width), 0, None)
    return np.broadcast_to(1 + height * across, (S, S)).copy()


def test_a_blurred_line_is_as_wide_as_at_half_of_its_height():
    canvas, geometry = line(height=8, half_width=4), Geometry("squash", S)
    (blob,) = regions_of(canvas, 1.5, geometry, (S, S))
    (region,) = regions_of(canvas, 1.5, geometry, (S, S), usual_peak=1.0)
    assert blob.box == (0, 9, S, 24)
    assert region.box == (0, 12, S, 21)
    assert (region.peak, region.peak_at) == (blob.peak, blob.peak_at)


def test_a_strong_defect_hides_no_weak_one():
    canvas = np.ones((S, S))
    canvas[4:8, 4:8], canvas[4:8, 10:14] = 9, 2
    found = regions_of(canvas, 1.5, Geometry("squash", S), (S, S), usual_peak=1.2)
    assert [region.area for region in found] == [16, 16]


@pytest.mark.parametrize("usual_peak", [-5.0, 0.5, 0.9, 7.0])
def test_shaping_neither_adds_nor_removes_regions(usual_peak):
    geometry, shape = Geometry("pad", S), (40, 90)
    canvas = canvas_of(geometry, shape)
    blobs = regions_of(canvas, 0.8, geometry, shape)
    shaped = regions_of(canvas, 0.8, geometry, shape, usual_peak=usual_peak)
    assert [region.peak for region in shaped] == [region.peak for region in blobs]
    inside = Regions([shaped], [shape]).mask(0) & ~Regions([blobs], [shape]).mask(0)
    assert not inside.any()


# --------------------------------------------------------------------------- many images


@pytest.fixture
def regions():
    geometry, shape = Geometry("squash", S), (40, 50)
    canvas = canvas_of(geometry, shape)
    found = regions_of(canvas, 0.97, geometry, shape)
    assert len(found) > 3
    return Regions([found, [], found[:2]], [shape, (10, 10), shape])


def test_as_a_table(regions):
    pd = pytest.importorskip("pandas")
    table = regions.to_frame()
    assert table["image"].tolist() == [0] * len(regions[0]) + [2, 2]
    assert table.loc[0, "peak"] == regions[0][0].peak
    nothing = regions[1:2].to_frame()
    assert nothing.columns.equals(table.columns)
    pd.testing.assert_frame_equal(nothing, table[:0], check_dtype=False, check_index_type=False)


def test_as_json_lines(regions, tmp_path):
    def refuse(constant):
        raise ValueError(constant)

    text = regions.to_json_lines(contours=True)
    lines = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert [line["image"] for line in lines] == [0, 1, 2]
    assert lines[1] == {"image": 1, "height": 10, "width": 10, "regions": []}
    first = regions[0][0]
    contour = lines[0]["regions"][0].pop("contour")
    assert lines[0]["regions"][0] == first.to_dict()
    assert contour == [polygon.tolist() for polygon in first.contour]
    regions.to_json_lines(tmp_path / "regions.jsonl", contours=True)
    assert (tmp_path / "regions.jsonl").read_text() == text


def test_json_holds_no_infinity():
    canvas = np.zeros((S, S))
    canvas[3, 3] = np.inf
    found = regions_of(canvas, 1.0, Geometry("squash", S), (S, S))
    line = json.loads(Regions([found], [(S, S)]).to_json_lines())
    assert line["regions"][0]["peak"] is None


def test_one_shape_per_image():
    with pytest.raises(ValueError, match="2 lists of regions, but 1 shapes"):
        Regions([[], []], [(3, 3)])
