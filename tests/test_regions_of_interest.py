"""Regions of interest: what lies outside is never learned, never scored, and changes nothing."""

import pickle

import numpy as np
import pytest
from conftest import make_detector, make_reconpatch, make_recontrast
from PIL import Image
from sklearn.base import clone

import skad
from skad import ScoreFusionDetector

MAKERS = {"patchcore": make_detector, "reconpatch": make_reconpatch, "recontrast": make_recontrast}
BANKS = {name: MAKERS[name] for name in ("patchcore", "reconpatch")}
EVERY = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)

# The left two thirds of images of 40 x 48 pixels, without a hole.
MASK = np.zeros((40, 48), bool)
MASK[:, :32] = True
MASK[16:24, 8:16] = False


def mask_of(image):
    return MASK


@pytest.fixture(scope="module")
def outside(good):
    """The good images with noise outside of the mask."""
    noise = np.random.default_rng(5).integers(0, 256, good.shape, dtype=np.uint8)
    return np.where(MASK[:, :, None], good, noise)


@pytest.fixture(scope="module")
def inside(good):
    """Good images with a defect that lies inside."""
    images = good[:4].copy()
    images[:, 4:14, 18:28] = 250
    return images


@EVERY
@pytest.mark.parametrize(
    ("geometry", "roi"),
    [("squash", MASK), ("pad", mask_of), ("crop", MASK), ("crop", mask_of)],
    ids=["squash-mask", "pad-function", "crop-mask", "crop-function"],
)
def test_what_lies_outside_changes_nothing(make, geometry, roi, good, outside, inside):
    params = {"geometry": geometry, "image_size": 64, "roi": roi}
    if make is make_recontrast:
        params["max_iter"] = 4
    det, other = make(**params).fit(good), make(**params).fit(outside)
    maps = det.predict_heatmap(inside)
    np.testing.assert_array_equal(other.predict_heatmap(inside), maps)
    np.testing.assert_array_equal(det.score_samples(outside), det.score_samples(good))
    assert other.offset_ == det.offset_
    seen = np.ones((40, 48), bool)
    if geometry == "crop":
        seen = np.isfinite(make(**{**params, "roi": None}).fit(good).predict_heatmap(good[:1])[0])
    np.testing.assert_array_equal(np.isfinite(maps), np.broadcast_to(MASK & seen, maps.shape))
    assert det.score_samples(inside).max() < det.score_samples(good).min()


@pytest.mark.parametrize("make", BANKS.values(), ids=BANKS)
def test_a_mask_and_a_function_give_the_same_detector(make, good, inside):
    one, two = make(roi=MASK).fit(good), make(roi=mask_of).fit(good)
    np.testing.assert_array_equal(one.bank_.vectors, two.bank_.vectors)
    np.testing.assert_array_equal(one.training_scores_, two.training_scores_)
    np.testing.assert_array_equal(one.score_samples(inside), two.score_samples(inside))
    np.testing.assert_array_equal(one.roi_.mask, MASK)
    assert two.roi_.mask is None


def test_the_bank_holds_patches_of_the_region_alone(good):
    det = make_detector(roi=MASK, image_size=64, coreset_size=1.0).fit(good)
    ((_, found),) = det._as_fitted()._iter_scores(good[:1], maps=True)
    counts = np.isfinite(found.grid[0])
    # A grid of 8 x 8 over 40 x 48 pixels: columns of 6 pixels, rows of 5.
    expected = np.zeros((8, 8), bool)
    for row, column in np.ndindex(8, 8):
        cell = MASK[5 * row : 5 * row + 5, 6 * column : 6 * column + 6]
        expected[row, column] = cell.mean() >= 0.5
    np.testing.assert_array_equal(counts, expected)
    assert len(det.bank_) == len(good) * expected.sum()


@EVERY
def test_scores_and_regions_are_those_of_the_map(make, good, inside):
    det = make(roi=MASK, image_size=64).fit(good)
    for image, score in zip(
        det._as_fitted()._iter_maps(inside), -det.score_samples(inside), strict=True
    ):
        assert np.nanmax(image.canvas) == pytest.approx(score, rel=1e-9)
    regions = det.predict_regions(inside)
    assert [len(found) > 0 for found in regions] == list(det.predict(inside) == -1)
    for i in range(len(inside)):
        # Decided on the canvas, whose pixels may reach beyond the edge of the mask by half.
        assert not regions.mask(i)[:, 34:].any()


def test_lazy_and_plain_scores_agree(good, inside, monkeypatch):
    det = make_detector(roi=MASK, image_size=96, coreset_size=0.5).fit(good)
    scores, maps = det.score_samples(inside), det.predict_heatmap(inside)
    monkeypatch.setenv("SKAD_PLAIN", "1")
    plain = make_detector(roi=MASK, image_size=96, coreset_size=0.5).fit(good)
    np.testing.assert_allclose(plain.score_samples(inside), scores, rtol=1e-4)
    np.testing.assert_allclose(plain.predict_heatmap(inside), maps, rtol=1e-3, equal_nan=True)
    np.testing.assert_allclose(plain.training_scores_, det.training_scores_, rtol=1e-4)


@EVERY
def test_files_keep_it(make, good, inside, tmp_path):
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    det = make(roi=tmp_path / "mask.png").fit(good)
    maps = det.predict_heatmap(inside)
    skad.save(det, tmp_path / "det.skad")
    (tmp_path / "mask.png").unlink()  # it is not read again
    for read in (skad.load(tmp_path / "det.skad"), pickle.loads(pickle.dumps(det)), det):
        np.testing.assert_array_equal(read.predict_heatmap(inside), maps)
    with pytest.raises(ValueError, match="there is no such file"):
        det.fit(good)


def test_a_file_holds_no_function(good, inside, tmp_path):
    det = make_detector(roi=mask_of).fit(good)
    with pytest.raises(ValueError, match=r"roi holds a function.*pickle the detector"):
        skad.save(det, tmp_path / "det.skad")
    read = pickle.loads(pickle.dumps(det))
    np.testing.assert_array_equal(read.score_samples(inside), det.score_samples(inside))


@EVERY
def test_images_of_another_size_are_refused_by_name(make, good):
    wrong = [*good[:3], good[3][:30]]
    with pytest.raises(ValueError, match=r"image 3 .*30 x 48 pixels.*40 x 48"):
        make(roi=MASK).fit(wrong)
    det = make(roi=MASK).fit(good)
    for method in ("score_samples", "calibrate", "partial_fit"):
        if hasattr(det, method):
            with pytest.raises(ValueError, match=r"image 3 .*30 x 48 pixels.*40 x 48"):
                getattr(det, method)(wrong)


@pytest.mark.parametrize(
    ("roi", "error"),
    [(np.zeros((40, 48)), ValueError), ("absent.png", ValueError), (5, ValueError)],
)
def test_what_is_no_region_is_refused(good, roi, error):
    with pytest.raises(error, match="roi"):
        make_detector(roi=roi).fit(good)


def test_it_belongs_to_the_fit(good, inside):
    det = make_detector(roi=MASK.copy()).fit(good)
    scores = det.score_samples(inside)
    det.roi[:] = True
    with pytest.raises(ValueError, match="roi changed after fit"):
        det.predict(inside)
    det.set_params(roi=MASK)
    np.testing.assert_array_equal(det.score_samples(inside), scores)
    assert clone(det).roi is not None


@pytest.mark.parametrize("make", BANKS.values(), ids=BANKS)
def test_further_and_fresh_images(make, good, outside, inside):
    det, other = make(roi=MASK).fit(good[:8]), make(roi=mask_of).fit(outside[:8])
    for one, images in ((det, good), (other, outside)):
        one.partial_fit(images[8:])
    np.testing.assert_array_equal(det.bank_.vectors, other.bank_.vectors)
    assert det.offset_ == other.offset_
    assert det.calibrate(good[:6]).offset_ == other.calibrate(outside[:6]).offset_


def test_training_sets_that_are_not_clean(good, inside):
    mixed = np.concatenate([good, inside[:1]])
    for roi in (MASK, mask_of):
        det = make_detector(roi=roi, trim_fraction=0.1, image_size=64).fit(mixed)
        assert det.trimmed_indices_.tolist() == [12]


def test_a_store_and_streams_change_nothing(good, inside, tmp_path):
    params = {"roi": MASK, "coreset_projection_dim": 16}
    scores = make_detector(**params).fit(good).score_samples(inside)
    for more in ({"memory": tmp_path}, {"memory": tmp_path}, {"max_memory": "60kB"}):
        det = make_detector(**params, **more).fit(good)
        np.testing.assert_array_equal(det.score_samples(inside), scores)


@pytest.mark.parametrize("sizes", [(32, 32), (32, 64)])
@pytest.mark.parametrize("roi", [MASK, mask_of], ids=["mask", "function"])
def test_ensembles(good, outside, inside, sizes, roi):
    members = [
        (name, make_detector(roi=roi, image_size=size, layers=layers))
        for name, size, layers in zip("ab", sizes, [(2, 3), (2,)], strict=True)
    ]
    both = ScoreFusionDetector(members, target_false_alarm_rate=0.2)
    maps = both.fit(good).predict_heatmap(inside)
    np.testing.assert_array_equal(np.isfinite(maps), np.broadcast_to(MASK, maps.shape))
    np.testing.assert_array_equal(both.fit(outside).predict_heatmap(inside), maps)
    assert (both.predict(inside) == -1).all()


def test_members_must_look_at_one_region(good):
    members = [("a", make_detector(roi=MASK)), ("b", make_detector())]
    with pytest.raises(ValueError, match="'a' and 'b' have different regions"):
        ScoreFusionDetector(members).fit(good)


def test_rows_of_flattened_images(good, inside):
    rows = good.reshape(len(good), -1)
    det = make_detector(roi=MASK, image_shape=(40, 48, 3)).fit(rows)
    plain = make_detector(roi=MASK).fit(good)
    np.testing.assert_array_equal(
        det.score_samples(inside.reshape(4, -1)), plain.score_samples(inside)
    )
