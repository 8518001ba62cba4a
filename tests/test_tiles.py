"""tiles= of the detectors: every tile is scored as what it is, and nothing tells where the seams are."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tiny_resnet  # noqa: F401  registers the backbone
import torch
from conftest import make_detector, make_reconpatch, make_recontrast
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import skad
from skad import ScoreFusionDetector
from skad._scoring.heatmaps import render
from skad.utils.estimator_checks import check_image_detector

TILE, MARGIN = 64, 16


def tiled(make=make_detector, **params):
    defaults = {"image_size": TILE, "tiles": (2, 2), "coreset_size": 200}
    if make is make_recontrast:
        defaults.pop("coreset_size")
        defaults |= {"backbone": "tiny_resnet", "max_iter": 3, "target_false_alarm_rate": 0.5}
    return make(**{**defaults, **params})


# ReContrast holds two of eight images out, which promise no smaller rate.
RATES = {"patchcore": 0.3, "reconpatch": 0.3, "recontrast": 0.4}
MAKERS = {"patchcore": make_detector, "reconpatch": make_reconpatch, "recontrast": make_recontrast}


@pytest.fixture(scope="module")
def good():
    return textures(8, (110, 120), seed=0)


@pytest.fixture(scope="module")
def defective(good):
    images = good[:4].copy()
    images[:, 40:60, 50:70] = 255
    return images


@pytest.fixture(scope="module")
def mixed():
    """Good images of several sizes, one of them smaller than a tile."""
    shapes = [(110, 120), (64, 64), (150, 70), (90, 200), (40, 50), (110, 120), (75, 75), (128, 96)]
    return [textures(1, shape, seed)[0] for seed, shape in enumerate(shapes)]


def textures(n, shape, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(90, 130, size=(n, *shape, 3), dtype=np.uint8)


# ---------------------------------------------------------------------- scores


def brute_force(det, image):
    """Score an image as the documentation says, with nothing but slices and distances."""
    now = det._as_fitted()
    extractor, canvas = now._embedder(), det.geometry_.apply(image)
    height, width = (side // 8 for side in canvas.shape[:2])
    grid = np.full((height, width), np.nan)
    step, bank = TILE - 2 * MARGIN, det.bank_.vectors.astype(np.float64)
    for top in range(0, canvas.shape[0] - TILE + 1, step):
        for left in range(0, canvas.shape[1] - TILE + 1, step):
            tile = canvas[top : top + TILE, left : left + TILE]
            patches = extractor.embed(tile[None].copy())[0].numpy().astype(np.float64)
            nearest = cdist(patches, bank).min(axis=1).reshape(TILE // 8, TILE // 8)
            for row in range(TILE // 8):
                for column in range(TILE // 8):
                    y, x = top // 8 + row, left // 8 + column
                    inner = all(
                        at >= MARGIN // 8 or start == 0
                        for at, start in [(row, top), (column, left)]
                    )
                    if inner:  # a later tile takes over from its own margin on
                        grid[y, x] = nearest[row, column]
    return render(grid, canvas.shape[:2], det.smoothing)


@pytest.mark.parametrize("tiles", [(2, 2), (1, 3), (3, 2)])
@pytest.mark.parametrize("make", [make_detector, make_reconpatch])
def test_scores_are_those_of_tiles_by_brute_force(make, tiles, good, defective):
    det = tiled(make, tiles=tiles, whitening=0.25).fit(good)
    assert det.geometry_.canvas == tuple(32 * n + 32 for n in tiles)
    for image in (good[0], defective[0]):
        canvas = brute_force(det, image)
        found = next(det._as_fitted()._iter_maps([image])).canvas
        np.testing.assert_allclose(found, canvas, rtol=1e-5)
        np.testing.assert_allclose(-det.score_samples([image]), canvas.max(), rtol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_defects_are_found_where_they_are(name, good, defective):
    det = tiled(MAKERS[name], target_false_alarm_rate=RATES[name]).fit(good)
    if name == "recontrast":  # which is hardly trained
        assert det.predict_heatmap(defective).shape == (4, 110, 120)
        return
    assert (det.predict(defective) == -1).all()
    for found in det.predict_regions(defective):
        row, column = found[0].peak_at
        assert 30 < row < 70
        assert 40 < column < 80


@pytest.mark.parametrize("make", [make_detector, make_reconpatch])
def test_the_same_content_has_the_same_values_in_all_inner_tiles(make):
    """An image that repeats with the stride of the tiles."""
    rng = np.random.default_rng(1)
    step = TILE - 2 * MARGIN
    period = rng.integers(60, 200, size=(step, step, 3), dtype=np.uint8)
    side = 4 * step + 2 * MARGIN  # the canvas of 4 x 4 tiles
    image = np.tile(period, (6, 6, 1))[:side, :side]
    others = np.stack([np.roll(image, shift, axis=(0, 1)) for shift in (0, 5, 11, 17)])
    det = tiled(make, tiles=(4, 4), smoothing=0, whitening=0.25).fit(others)
    ((_, found),) = det._as_fitted()._iter_scores([image], maps=True)
    cells, first = step // 8, (MARGIN + step) // 8
    inner = [
        found.grid[0][first + i * cells :][:cells, first + j * cells :][:, :cells]
        for i in range(2)
        for j in range(2)
    ]
    assert inner[0].shape == (cells, cells)
    assert len(np.unique(inner[0])) > 1
    for other in inner[1:]:
        assert np.array_equal(inner[0], other)


def test_a_bar_across_a_seam_is_one_region(good):
    det = tiled(target_false_alarm_rate=0.3).fit(good)
    image = good[0].copy()
    image[50:58, 20:100] = 255
    (found,) = det.predict_regions([image])
    assert len(found) == 1
    _, left, _, right = found[0].box
    assert left < 30
    assert right > 90


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_depends_on_the_company(name, mixed):
    det = tiled(MAKERS[name], tiles="native", target_false_alarm_rate=0.4).fit(mixed)
    scores = det.score_samples(mixed)
    alone = np.concatenate([det.score_samples([image]) for image in mixed])
    assert np.array_equal(scores, alone)
    assert np.array_equal(det.score_samples(mixed[::-1]), scores[::-1])
    for params in ({"batch_size": 1}, {"batch_size": 3}, {"n_jobs": 2}):
        other = copy.deepcopy(det).set_params(**params)
        assert np.array_equal(other.score_samples(mixed), scores)


@pytest.mark.parametrize("name", MAKERS)
def test_threads_change_nothing(name, good, defective):
    # The bundled backbone, whose layers are wide enough for several threads.
    det = tiled(MAKERS[name], backbone="skad_nano", target_false_alarm_rate=0.5).fit(good[:6])
    before, scores = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            scores.append(det.score_samples(defective[:1]))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*scores)


@pytest.mark.parametrize("name", MAKERS)
def test_two_fits_are_equal(name, good, defective):
    one, two = (tiled(MAKERS[name], batch_size=2).fit(good[:6]) for _ in range(2))
    assert np.array_equal(one.score_samples(defective), two.score_samples(defective))
    assert one.offset_ == two.offset_


def test_one_tile_is_none(good, defective):
    one, none = tiled(tiles=(1, 1)).fit(good), tiled(tiles=None).fit(good)
    assert one.geometry_ == none.geometry_
    np.testing.assert_allclose(
        one.score_samples(defective), none.score_samples(defective), rtol=1e-6
    )
    assert one.offset_ == pytest.approx(none.offset_, rel=1e-6)


def test_one_tile_of_recontrast_is_nearly_none(good, defective):
    """Its layers meet on the grid of the first one, not on the canvas."""
    one, none = (tiled(make_recontrast, tiles=tiles).fit(good) for tiles in [(1, 1), None])
    for of_one, of_none in zip(
        one.predict_heatmap(defective), none.predict_heatmap(defective), strict=True
    ):
        np.testing.assert_allclose(of_one, of_none, atol=0.1 * np.ptp(of_none))


@pytest.mark.parametrize("image_score", ["map", "patch", 0.1])
def test_a_score_is_what_its_map_says(good, defective, image_score):
    det = tiled(image_score=image_score).fit(good)
    maps, scores = det.predict_heatmap(defective, return_scores=True)
    assert np.array_equal(scores, det.score_samples(defective))
    assert (det.training_scores_ < 0).all()
    if image_score == "map":
        assert (-scores >= maps.reshape(4, -1).max(axis=1) - 1e-4).all()


@pytest.mark.parametrize("make", [make_detector, make_reconpatch])
def test_streaming_changes_nothing(make, good, defective):
    held = tiled(make).fit(good)
    streamed = tiled(make, max_memory=2_600_000).fit(good)
    assert np.array_equal(held.score_samples(defective), streamed.score_samples(defective))
    assert np.array_equal(held.training_scores_, streamed.training_scores_)


def test_a_store_keeps_tiles(good, defective, tmp_path):
    plain = tiled().fit(good[:4])
    stored = tiled(memory=tmp_path).fit(good[:4])
    n_files = len(list(tmp_path.rglob("*.features")))
    assert n_files == 16
    assert np.array_equal(plain.score_samples(defective), stored.score_samples(defective))
    tiled(memory=tmp_path, coreset_size=50).fit(good[:4])
    assert len(list(tmp_path.rglob("*.features"))) == n_files + 16  # those of `defective`


def test_partial_fit(mixed, good):
    det = tiled(tiles="native", target_false_alarm_rate=0.4, whitening=0).fit(mixed)
    before = det.bank_.vectors.copy()
    det.partial_fit(good[:3])
    assert det.n_images_ == len(mixed) + 3
    assert len(det.training_scores_) == det.n_images_
    assert not np.array_equal(det.bank_.vectors, before)


# ----------------------------------------------------------- images of any size


@pytest.mark.parametrize("name", MAKERS)
def test_images_keep_their_own_resolution(name, mixed):
    det = tiled(MAKERS[name], tiles="native", target_false_alarm_rate=0.4).fit(mixed)
    assert det.image_size_ == TILE
    assert (det.tiling_.rows, det.tiling_.columns) == (None, None)
    maps = det.predict_heatmap(mixed)
    assert [heatmap.shape for heatmap in maps] == [image.shape[:2] for image in mixed]
    assert all(np.isfinite(heatmap).all() for heatmap in maps)
    peaks = np.array([heatmap.max() for heatmap in maps])
    assert (-det.score_samples(mixed) >= peaks - 1e-4).all()


def test_a_native_image_is_scored_as_on_a_canvas_of_its_size(good, defective):
    shape = (96, 128)  # of 2 x 3 tiles
    images, others = good[:, : shape[0], :], defective[:, : shape[0]]
    images, others = (
        np.pad(X, ((0, 0), (0, 0), (0, 8), (0, 0)), mode="wrap") for X in (images, others)
    )
    own, fixed = (tiled(tiles=tiles).fit(images) for tiles in ("native", (2, 3)))
    assert own.geometry_.canvas_of(*shape) == fixed.geometry_.canvas == shape
    assert np.array_equal(own.score_samples(others), fixed.score_samples(others))
    assert own.offset_ == fixed.offset_


def test_what_a_larger_image_adds_does_not_change_the_rest(mixed):
    det = tiled(tiles="native", target_false_alarm_rate=0.4, smoothing=0).fit(mixed)
    image = textures(1, (256, 256), 7)[0]
    grids = [
        next(det._as_fitted()._iter_scores([some], maps=True))[1].grid[0]
        for some in (image, image[:192])
    ]
    # Tiles begin at the upper left corner: the first rows of tiles are the same.
    assert np.array_equal(grids[0][:18], grids[1][:18])


def test_padding_below_and_to_the_right_does_not_count(mixed):
    det = tiled(tiles="native", target_false_alarm_rate=0.4).fit(mixed)
    ((_, found),) = det._as_fitted()._iter_scores([mixed[4]], maps=True)
    grid = found.grid[0]
    assert grid.shape == (8, 8)
    assert np.isnan(grid[5:]).all()  # 40 of 64 rows
    assert np.isnan(grid[:, 7:]).all()  # 50 of 64 columns
    assert np.isfinite(grid[:5, :6]).all()


# ---------------------------------------------------------------------- regions


def test_what_lies_outside_of_a_region_never_counts(good, defective):
    inside = np.zeros((110, 120), dtype=bool)
    inside[:, 60:] = True
    det = tiled(tiles="native", roi=inside).fit(good)
    inverse = tiled(tiles="native", roi=~inside).fit(good)
    spoiled = defective.copy()
    spoiled[:, :, :40] = 7
    assert np.array_equal(det.score_samples(defective), det.score_samples(spoiled))
    assert not np.array_equal(inverse.score_samples(defective), inverse.score_samples(spoiled))
    heatmap = det.predict_heatmap(defective)[0]
    assert np.isnan(heatmap[:, :60]).all()
    assert np.isfinite(heatmap[:, 60:]).all()


def test_tiles_outside_of_a_region_cost_nothing(good, monkeypatch):
    inside = np.zeros((110, 120), dtype=bool)
    inside[:20, :20] = True
    det = tiled(tiles="native", roi=inside, coreset_size=50).fit(good)
    seen, now = [], det._as_fitted()
    pool = type(now._network).pool
    monkeypatch.setattr(
        type(now._network), "pool", lambda self, x: seen.append(len(x)) or pool(self, x)
    )
    now.score_samples(good[:1])
    assert seen == [1]  # of six


# -------------------------------------------------------------- large images


@pytest.fixture
def all_are_large(monkeypatch):
    """Images and maps of these tests are read and rendered in pieces."""
    monkeypatch.setattr("skad._images.sources.LARGE", 64 * 64)
    monkeypatch.setattr("skad._scoring.maps.BLOCK", 48)
    monkeypatch.setattr("skad._scoring.regions.BLOCK", 48)
    from skad._scoring import heatmaps

    heatmaps._operator.cache_clear()
    yield
    heatmaps._operator.cache_clear()


@pytest.mark.parametrize(
    ("name", "tiles"),
    [("patchcore", "native"), ("patchcore", (2, 2)), ("recontrast", "native")],
)
def test_large_images_are_scored_as_others(name, good, defective, tiles, request):
    # Wide and trained enough to find the defects.
    params = {"backbone": "skad_nano", "target_false_alarm_rate": RATES[name]}
    det = tiled(MAKERS[name], tiles=tiles, **params).fit(good)
    maps, scores = det.predict_heatmap(defective, return_scores=True)
    regions = det.predict_regions(defective)
    request.getfixturevalue("all_are_large")
    large_maps, large_scores = det.predict_heatmap(defective, return_scores=True)
    large_regions = det.predict_regions(defective)
    # Resized images may differ by a grey level.
    tolerance = 1e-6 if tiles == "native" else 0.05
    np.testing.assert_allclose(large_scores, scores, rtol=tolerance)
    np.testing.assert_allclose(large_maps, maps, rtol=tolerance, atol=5 * tolerance)
    assert np.array_equal(large_scores, det.score_samples(defective))
    for some, others in zip(large_regions, regions, strict=True):
        assert len(some) == len(others) > 0
        if tiles == "native":
            assert [one.box for one in some] == [one.box for one in others]
            assert [one.area for one in some] == [one.area for one in others]
            np.testing.assert_allclose([o.peak for o in some], [o.peak for o in others])


@pytest.mark.parametrize("name", ["patchcore", "recontrast"])
@pytest.mark.parametrize("image_score", ["map", 0.3])
def test_large_maps_of_a_region_of_interest(name, good, defective, image_score, request):
    inside = np.zeros((110, 120), dtype=bool)
    inside[10:100, 30:90] = True
    det = tiled(MAKERS[name], tiles="native", roi=inside, image_score=image_score).fit(good)
    maps, scores = det.predict_heatmap(defective, return_scores=True)
    request.getfixturevalue("all_are_large")
    large_maps, large_scores = det.predict_heatmap(defective, return_scores=True)
    np.testing.assert_allclose(large_scores, scores)
    np.testing.assert_allclose(large_maps, maps, rtol=1e-3)
    assert np.array_equal(np.isnan(large_maps), np.isnan(maps))


def test_verdicts_and_regions_of_large_images_agree(good, defective, all_are_large):
    det = tiled(tiles="native").fit(good)
    X = [*good, *defective]
    for rate in (0.12, 0.3, 0.6):
        det.calibrate(target_false_alarm_rate=rate)
        has_region = np.array([len(found) > 0 for found in det.predict_regions(X)])
        assert np.array_equal(det.predict(X) == -1, has_region)


def test_a_large_image_that_must_be_decoded_as_a_whole(good, tmp_path, all_are_large):
    from PIL import Image

    paths = [tmp_path / f"{i}.png" for i in range(len(good))]
    for path, image in zip(paths, good, strict=True):
        Image.fromarray(image).save(path)
    whole = tiled(tiles="native", max_memory="1GB").fit(paths)
    assert np.array_equal(whole.score_samples(paths[:2]), whole.score_samples(good[:2]))
    for X in (paths, paths[3:]):
        with pytest.raises(
            ValueError, match=r"image 0.*110 x 120 pixels.*GB.*max_memory=9000.*TIFF"
        ):
            tiled(tiles="native", max_memory=9000).fit(X)


_SCORE_A_HUGE_IMAGE = """
import resource, sys
import numpy as np
import tifffile
from skad import PatchCoreDetector

side, path = 20_000, sys.argv[1]
texture = np.random.default_rng(0).integers(90, 130, (256, 256, 3), np.uint8)
def tiles():
    for number in range(40 * 40):
        tile = np.tile(texture, (2, 2, 1))
        if number == 20 * 40 + 20:  # from row and column 10,240 on
            tile[200:260, 100:300] = 255
        yield tile
tifffile.imwrite(path, tiles(), shape=(side, side, 3), dtype="uint8", tile=(512, 512),
                 compression="zlib", photometric="rgb")
shifted = (np.roll(texture, (31 * i, 17 * i), axis=(0, 1)) for i in range(5))
det = PatchCoreDetector("skad_nano", image_size=640, tiles="native", max_memory="1GB", coreset_size=200,
                        random_state=0, target_false_alarm_rate=0.3, n_jobs=1)
det.fit([np.tile(image, (4, 4, 1)) for image in shifted])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
before = peak()
(score,), (found,) = det.score_samples([path]), det.predict_regions([path])
print(score, -found[0].peak, *found[0].peak_at, peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image(tmp_path):
    """400 megapixels, of which 1.2 GB would be pixels, and 3.2 GB the map."""
    result = subprocess.run(
        [sys.executable, "-c", _SCORE_A_HUGE_IMAGE, tmp_path / "huge.tif"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    score, peak, row, column, megabytes = map(float, result.stdout.split())
    assert score == peak
    assert 10_440 <= row < 10_500
    assert 10_340 <= column < 10_540
    assert megabytes < 600


def test_heat_maps_that_take_too_much_are_refused(good):
    det = tiled(max_memory=3_000_000).fit(good)
    det.set_params(max_memory=4 * 110 * 120 * 4)
    assert det.predict_heatmap(good[:4]).shape == (4, 110, 120)
    with pytest.raises(ValueError, match=r"heat maps of these 5 images.*GB.*predict_regions"):
        det.predict_heatmap(good[:5])
    assert len(det.predict_regions(good[:5])) == 5


# ------------------------------------------------------- in scikit-learn's hands


def test_a_search_over_tiles(good, defective):
    X, y = np.concatenate([good, defective]), np.repeat([1, -1], [8, 4])
    search = GridSearchCV(
        tiled(coreset_size=100),
        {"tiles": [None, (1, 2), (2, 2), "native"]},
        cv=StratifiedKFold(2, shuffle=True, random_state=0),
    ).fit(X, y)
    assert search.best_score_ == 1
    assert len(search.cv_results_["params"]) == 4


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("tiles", [(2, 1), "native"])
def test_saved_and_copied_detectors_score_the_same(name, tiles, good, defective, tmp_path):
    det = tiled(MAKERS[name], tiles=tiles).fit(good[:6])
    scores = det.score_samples(defective)
    skad.save(det, tmp_path / "det.skad")
    for other in (skad.load(tmp_path / "det.skad"), pickle.loads(pickle.dumps(det))):
        assert np.array_equal(other.score_samples(defective), scores)
        assert other.tiling_ == det.tiling_
        assert other.geometry_ == det.geometry_
    assert clone(det).tiles == tiles


def test_a_detector_of_before_there_were_tiles(good, defective):
    det = make_detector().fit(good)
    state = det.__getstate__()
    state.pop("tiles")
    state.pop("tiling_")
    state["_params_at_fit"].pop("tiles")
    old = det.__class__.__new__(det.__class__)
    old.__setstate__(state)
    assert old.tiles is None
    assert np.array_equal(old.score_samples(defective), det.score_samples(defective))


@pytest.mark.parametrize("changed", [{"tiling_": None}, {"tiles": (3, 3)}])
def test_files_whose_tiles_do_not_belong_are_refused(good, tmp_path, changed):
    det = tiled().fit(good[:6])
    for name, value in changed.items():
        setattr(det, name, value)
        if name == "tiles":
            det._params_at_fit = {**det._params_at_fit, name: value}
    with pytest.raises(ValueError, match="tiling_ must be that of the parameters"):
        skad.save(det, tmp_path / "det.skad")


def test_tiles_are_not_to_be_changed_after_fit(good):
    det = tiled().fit(good[:6]).set_params(tiles=(3, 3))
    with pytest.raises(ValueError, match="tiles"):
        det.score_samples(good[:1])


def test_detector_checks():
    check_image_detector(tiled(backbone="tiny_resnet", image_size=48, tiles=(1, 2)))


# ----------------------------------------------------------------------- fusion


def test_a_coarse_and_a_fine_member(mixed, good, defective):
    whole = make_detector(image_size=64, geometry="pad")
    members = [("whole", whole), ("parts", tiled(tiles="native"))]
    fused = ScoreFusionDetector(members, target_false_alarm_rate=0.3).fit(mixed)
    maps, scores = fused.predict_heatmap([good[0], defective[0][:80]], return_scores=True)
    assert [heatmap.shape for heatmap in maps] == [(110, 120), (80, 120)]
    assert scores[1] < scores[0]
    same = ScoreFusionDetector(
        [("a", tiled(tiles="native")), ("b", tiled(tiles="native", patch_size=5))],
        target_false_alarm_rate=0.3,
    ).fit(mixed)
    assert same._share_grid
    assert np.isfinite(same.score_samples(mixed)).all()


@pytest.mark.parametrize(
    "params",
    [{}, {"image_score": 0.2}, {"image_score": "patch"}, {"level": "image"}],
    ids=str,
)
@pytest.mark.parametrize("coarse", [{"geometry": "crop", "image_size": 64}, {"tiles": "native"}])
def test_large_maps_of_a_fusion(coarse, params, mixed, good, defective, request):
    """What a crop does not show is seen by the other member alone."""
    members = [
        ("first", make_detector(**coarse) if "geometry" in coarse else tiled(**coarse)),
        ("second", tiled(tiles="native", smoothing=2.0)),
    ]
    fused = ScoreFusionDetector(members, target_false_alarm_rate=0.3, **params).fit(good[:4])
    assert fused._share_grid == ("tiles" in coarse)
    X = [defective[0], mixed[3], good[0]]
    maps, scores = fused.predict_heatmap(X, return_scores=True)
    regions = fused.predict_regions(X)
    request.getfixturevalue("all_are_large")
    large_maps, large_scores = fused.predict_heatmap(X, return_scores=True)
    np.testing.assert_allclose(large_scores, scores)
    for large, small in zip(large_maps, maps, strict=True):
        np.testing.assert_allclose(large, small, rtol=1e-4, atol=1e-4)
    for some, others in zip(fused.predict_regions(X), regions, strict=True):
        assert [one.box for one in some] == [one.box for one in others]
    assert len(regions[0]) > 0


def test_recontrast_in_a_fusion(mixed):
    members = [("a", tiled(make_recontrast, tiles="native")), ("b", tiled(tiles="native"))]
    fused = ScoreFusionDetector(members, target_false_alarm_rate=0.4).fit(mixed)
    assert np.isfinite(fused.score_samples(mixed)).all()


# ----------------------------------------------------------------------- errors


@pytest.mark.parametrize("tiles", [(0, 2), (2,), "all", 3, (1.5, 2)])
@pytest.mark.parametrize("name", MAKERS)
def test_tiles_that_are_none(name, tiles, good):
    with pytest.raises(ValueError, match="tiles"):
        tiled(MAKERS[name], tiles=tiles).fit(good)


def test_a_tile_that_strides_do_not_divide(good):
    with pytest.raises(ValueError, match=r"image_size=72.*multiple of 16.*use 64 or 80"):
        tiled(image_size=72).fit(good)


def test_tiles_that_only_enlarge_are_warned_of(good):
    with pytest.warns(
        UserWarning, match=r"tiles=\(6, 5\) of image_size=64.* 224 x 192 .* enlarged"
    ):
        tiled(tiles=(6, 5)).fit(good)


def test_native_tiles_show_whole_images(good):
    with pytest.raises(ValueError, match=r"tiles=\"native\" shows whole images"):
        tiled(tiles="native", geometry="crop").fit(good)


def test_trimming_needs_common_places(mixed, good):
    with pytest.raises(ValueError, match=r"trim_fraction.*tiles=\(rows, columns\)"):
        tiled(tiles="native", trim_fraction=0.2).fit(mixed)
    det = tiled(tiles="native", trim_fraction=0.25).fit(good)  # all of one size
    assert len(det.trimmed_indices_) == 2


def test_a_warm_start_keeps_its_tiles(good):
    det = tiled(make_recontrast, warm_start=True, target_false_alarm_rate=0.5).fit(good[:5])
    det.set_params(max_iter=5).fit(good[:5])
    assert det.n_iter_ == 5
    with pytest.raises(ValueError, match="warm_start=True cannot go on with another tiles"):
        det.set_params(tiles=(1, 2), max_iter=6).fit(good[:5])
