"""image_size: what "auto" stands for, and that it stays; rectangles."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_detector, make_reconpatch, make_recontrast
from scipy.ndimage import gaussian_filter

import skad
from skad import ScoreFusionDetector
from skad._features import default_image_size


@pytest.mark.parametrize(
    ("backbone", "side", "size"),
    [
        ("resnet18.tv_in1k", 200, 224),
        ("resnet18.tv_in1k", 319, 224),
        ("resnet18.tv_in1k", 2000, 320),
        ("resnet18", 2000, 320),
        ("tf_efficientnet_b4.ns_jft_in1k", 100, 380),
        ("tf_efficientnet_b4.ns_jft_in1k", 2000, 380),
        ("vit_base_patch16_224.augreg_in21k", 2000, 224),
        (torch.nn.Identity(), 2000, 224),
    ],
)
def test_by_backbone_and_photographs(backbone, side, size):
    assert default_image_size(backbone, side) == size


def test_an_unknown_backbone_is_named():
    with pytest.raises(ValueError, match="resnet1800"):
        default_image_size("resnet1800", 100)


def test_it_is_resolved_by_fit_and_kept(tmp_path):
    rng = np.random.default_rng(0)
    good = [rng.integers(90, 110, (330, 400, 3), dtype=np.uint8) for _ in range(5)]
    det = make_detector(backbone="resnet10t", weights=None, image_size="auto", coreset_size=50)
    assert not hasattr(det, "image_size_")
    det.fit(good)
    assert det.image_size_ == 320
    assert det.get_params()["image_size"] == "auto"
    det.partial_fit([image[:100, :100] for image in good])
    assert det.image_size_ == 320
    skad.save(det, tmp_path / "det.skad")
    read = skad.load(tmp_path / "det.skad")
    assert read.image_size_ == 320
    np.testing.assert_array_equal(read.score_samples(good), det.score_samples(good))
    assert det.fit([image[:100, :100] for image in good]).image_size_ == 176


# ---- rectangles ------------------------------------------------------------------------------------


WIDE = {"image_size": (32, 64)}
MAKERS = {"patchcore": make_detector, "reconpatch": make_reconpatch, "recontrast": make_recontrast}


@pytest.fixture(scope="module")
def wide(good):
    """Images of twice the width of their height."""
    return good[:, :24]


@pytest.fixture(scope="module")
def damaged(wide):
    images = wide[:4].copy()
    images[:, 4:14, 30:42] = 250
    return images


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("geometry", ["squash", "pad", "crop"])
def test_a_rectangle_for_every_detector(make, geometry, wide, damaged, tmp_path):
    det = make(**WIDE, geometry=geometry).fit(wide)
    assert det.image_size_ == (32, 64)
    scores, maps = det.score_samples(damaged), det.predict_heatmap(damaged)
    assert maps.shape == damaged.shape[:3]
    if geometry != "crop":
        assert np.unravel_index(maps[0].argmax(), maps[0].shape)[1] in range(24, 48)
    assert scores.max() < det.score_samples(wide).min()
    skad.save(det, tmp_path / "det.skad")
    read = skad.load(tmp_path / "det.skad")
    assert read.image_size_ == (32, 64)
    np.testing.assert_array_equal(read.predict_heatmap(damaged), maps)
    np.testing.assert_array_equal(read.score_samples(damaged[1:2]), scores[1:2])


def test_maps_are_those_of_the_patches(wide, damaged):
    """By hand: patches of the canvas, nearest vectors, and the map that SciPy makes of them."""
    det = make_detector(**WIDE, image_score="patch").fit(wide)
    canvas = det.geometry_.apply(damaged[0])
    assert canvas.shape == (32, 64, 3)
    patches = det._as_fitted()._embedder().embed(canvas[None].copy())[0].double().numpy()
    distances = np.linalg.norm(patches[:, None] - det.bank_.vectors, axis=2).min(1)
    assert distances.max() == pytest.approx(-det.score_samples(damaged[:1])[0])
    grid = torch.from_numpy(distances.reshape(4, 8))[None, None]
    up = F.interpolate(grid, size=(32, 64), mode="bilinear", align_corners=False)[0, 0]
    smooth = gaussian_filter(up.numpy(), 4)
    expected = det.geometry_.restore(smooth.astype(np.float32), *damaged[0].shape[:2])
    np.testing.assert_allclose(det.predict_heatmap(damaged[:1])[0], expected, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:12 of 12 images are squeezed")
def test_stores_know_rectangles(wide, damaged, tmp_path):
    plain = make_detector(**WIDE).fit(wide).score_samples(damaged)
    for size in (32, (64, 32), (32, 64), (32, 64)):
        det = make_detector(image_size=size, memory=tmp_path).fit(wide)
    np.testing.assert_array_equal(det.score_samples(damaged), plain)


def test_members_of_other_shapes_fuse(wide, damaged):
    both = ScoreFusionDetector(
        [("wide", make_detector(**WIDE)), ("square", make_detector(image_size=48))],
        target_false_alarm_rate=0.2,
    ).fit(wide)
    assert both.predict_heatmap(damaged).shape == damaged.shape[:3]
    assert (both.predict(damaged) == -1).all()


def test_a_square_may_be_written_as_two_sides(wide, damaged):
    one, two = make_detector(image_size=32).fit(wide), make_detector(image_size=[32, 32]).fit(wide)
    assert two.image_size_ == 32
    np.testing.assert_array_equal(one.score_samples(damaged), two.score_samples(damaged))


@pytest.mark.parametrize("size", [(32,), (32, 0), (32, 40.5), "large", 0, (1, 2, 3)])
def test_other_sizes_are_refused(wide, size):
    with pytest.raises(ValueError, match="image_size"):
        make_detector(image_size=size).fit(wide)


def test_recontrast_names_the_side_that_its_decoder_cannot_meet(wide):
    with pytest.raises(ValueError, match=r"\(32, 40\): 40 is not a multiple of 32.*32 or 64"):
        make_recontrast(image_size=(32, 40)).fit(wide)


@pytest.mark.filterwarnings("error")
def test_images_that_lose_their_shape_are_warned_of(wide):
    narrow = wide[:, :16]
    with pytest.warns(UserWarning, match=r'12 of 12 images.*16 x 48.*image_size=.*geometry="pad"'):
        make_detector(image_size=32).fit(narrow)
    for params in ({"image_size": (32, 96)}, {"geometry": "pad"}, {"geometry": "crop"}):
        make_detector(**params).fit(narrow)
    make_detector(image_size=32).fit(wide)
