"""Patches and the bank in two dimensions."""

import sys
from types import ModuleType

import numpy as np
import pytest
from conftest import make_detector, make_reconpatch, make_recontrast
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skad import ScoreFusionDetector

pytest.importorskip("matplotlib")
from skad.inspection import CoresetDisplay


@pytest.fixture(scope="module")
def labelled(good, defective):
    return np.concatenate([good, defective]), np.repeat([1, -1], [len(good), len(defective)])


@pytest.mark.parametrize("make", [make_detector, make_reconpatch])
def test_from_estimator(make, labelled):
    X, y = labelled
    det = make().fit(X, y)
    display = CoresetDisplay.from_estimator(det, X, y, random_state=0)
    assert display.bank.shape == (len(det.bank_), 2)
    per_image = np.prod(det._find_network().grid)
    assert display.patches.shape == (per_image * len(X), 2)
    assert np.sum(display.y == -1) == per_image * 4
    assert set(display.scatters_) == {"good", "defective", "coreset"}
    drawn = display.scatters_["coreset"].get_offsets()
    np.testing.assert_array_equal(drawn, display.bank)
    assert display.scatters_["coreset"].zorder > display.scatters_["good"].zorder
    assert "% of the variance" in display.ax_.get_xlabel()
    # Vectors of the bank are patch embeddings of good images.
    distances = np.linalg.norm(display.bank[:, None] - display.patches[display.y == 1], axis=2)
    np.testing.assert_allclose(distances.min(axis=1), 0, atol=1e-4)


def test_the_choice_of_patches(labelled):
    X, y = labelled
    det = make_detector(image_size=64).fit(X, y)
    display = CoresetDisplay.from_estimator(det, X, y, max_patches=40, random_state=0)
    assert np.sum(display.y == 1) == 36  # three of each of twelve images
    assert np.sum(display.y == -1) == 40  # ten of each of four
    assert len(display.bank) == 40
    again = CoresetDisplay.from_estimator(det, X, y, max_patches=40, random_state=0)
    other = CoresetDisplay.from_estimator(det, X, y, max_patches=40, random_state=1)
    np.testing.assert_array_equal(display.patches, again.patches)
    assert not np.array_equal(display.patches, other.patches)


def test_patches_in_padding_are_left_out(good):
    det = make_detector(geometry="pad", image_size=64).fit(good)
    grid = det._find_network().grid
    r0, r1, c0, c1 = det.geometry_.valid_cells(40, 48, *grid)
    n = (r1 - r0) * (c1 - c0)
    assert n < np.prod(grid)
    display = CoresetDisplay.from_estimator(det, good[:2])
    assert len(display.patches) == 2 * n
    assert set(display.scatters_) == {"patches", "coreset"}


def test_principal_components_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    patches, bank = rng.normal(size=(60, 8)), rng.normal(size=(9, 8))
    display = CoresetDisplay.from_predictions(patches, bank)
    expected = PCA(2).fit_transform(np.concatenate([patches, bank]))
    np.testing.assert_allclose(np.abs(display.patches), np.abs(expected[:60]), atol=1e-9)
    np.testing.assert_allclose(np.abs(display.bank), np.abs(expected[60:]), atol=1e-9)


def test_a_transformer_of_the_users_is_cloned():
    svd = TruncatedSVD(3)
    patches = np.random.default_rng(0).normal(size=(30, 8))
    display = CoresetDisplay.from_predictions(patches, patches[:4], reducer=svd)
    assert display.patches.shape == (30, 2)
    assert display.ax_.get_xlabel() == "1st dimension of TruncatedSVD"
    assert not hasattr(svd, "components_")


def test_umap_where_it_is_installed(monkeypatch):
    made = []

    class UMAP:
        def __init__(self, n_components, random_state, n_jobs):
            made.append((n_components, random_state, n_jobs))

        def fit_transform(self, X):
            return X[:, :2] + 1

    umap = ModuleType("umap")
    umap.UMAP = UMAP
    monkeypatch.setitem(sys.modules, "umap", umap)
    patches = np.random.default_rng(0).normal(size=(30, 8))
    display = CoresetDisplay.from_predictions(patches, patches[:4], reducer="umap", random_state=3)
    CoresetDisplay.from_predictions(patches, patches[:4], reducer="umap")
    assert made == [(2, 3, 1), (2, None, -1)]  # UMAP warns of threads that a seed rules out
    np.testing.assert_array_equal(display.bank, patches[:4, :2] + 1)


def test_umap_where_it_is_missing(monkeypatch, good):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match="pip install umap-learn"):
        # Said before anything is embedded: the detector is not even fitted.
        CoresetDisplay.from_estimator(make_detector(), good, reducer="umap")


def test_through_a_pipeline(good):
    det = make_detector().fit(good[:, 2:-2])
    pipeline = make_pipeline(FunctionTransformer(lambda X: X[:, 2:-2]), make_detector()).fit(good)
    through = CoresetDisplay.from_estimator(pipeline, good, random_state=0)
    alone = CoresetDisplay.from_estimator(det, good[:, 2:-2], random_state=0)
    np.testing.assert_array_equal(through.patches, alone.patches)


def test_detectors_without_a_bank(good):
    recontrast = make_recontrast(max_iter=1).fit(good)
    with pytest.raises(TypeError, match="ReContrastDetector has no memory bank"):
        CoresetDisplay.from_estimator(recontrast, good)
    members = [("a", make_detector()), ("b", make_detector(layers=(2,)))]
    fusion = ScoreFusionDetector(members, target_false_alarm_rate=0.2).fit(good)
    with pytest.raises(TypeError, match=r"named_estimators_ \('a', 'b'\)"):
        CoresetDisplay.from_estimator(fusion, good)
    assert CoresetDisplay.from_estimator(fusion.named_estimators_["a"], good[:2]).bank.shape[1] == 2


def test_what_cannot_be_drawn():
    patches = np.random.default_rng(0).normal(size=(30, 8))
    with pytest.raises(ValueError, match=r"with the same d; got \(30, 8\) and \(4, 7\)"):
        CoresetDisplay.from_predictions(patches, patches[:4, :7])
    with pytest.raises(ValueError, match="y has 2 labels for 30"):
        CoresetDisplay.from_predictions(patches, patches[:4], [1, -1])
    with pytest.raises(ValueError, match='must be "pca", "umap" or a transformer'):
        CoresetDisplay.from_predictions(patches, patches[:4], reducer="tsne")


def test_made_directly():
    patches, bank = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [[0.0, 1.0]]
    display = CoresetDisplay(patches, bank, [1, -1, -1]).plot()
    assert len(display.scatters_["defective"].get_offsets()) == 2
    for y, message in (
        ([0, 1, 1], "y holds"),
        ([True, False, False], "labels must be"),
        ([1, -1], "2 labels"),
    ):
        with pytest.raises(ValueError, match=message):
            CoresetDisplay(patches, bank, y)
    with pytest.raises(ValueError, match="from_predictions"):
        CoresetDisplay(np.zeros((3, 5)), np.zeros((1, 5)))
    with pytest.raises(ValueError, match="with the same d"):
        CoresetDisplay(patches, [0.0, 1.0])
