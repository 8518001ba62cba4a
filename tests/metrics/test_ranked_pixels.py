"""The engine of pixel metrics: curves and areas of grouped pixels, and how far groups can be off."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from skad.metrics._ranked_pixels import RankedPixels


def grouped(group, defective, region):
    """Count pixels by the number of their group, the highest first."""
    n = group.max() + 1
    sizes = np.bincount(region)
    return RankedPixels(
        good=np.bincount(group[~defective], minlength=n)[::-1],
        defective=np.bincount(group[defective], minlength=n)[::-1],
        overlap=np.bincount(group[defective], 1 / sizes[region], minlength=n)[::-1],
        n_regions=np.count_nonzero(sizes),
    )


@pytest.fixture(params=range(8))
def pixels(request):
    """Groups of 200 pixels, some of them empty; defects are a little higher and make three regions."""
    rng = np.random.default_rng(request.param)
    defective = rng.random(200) < 0.2
    group = rng.integers(0, 3 + 4 * request.param, 200) + 2 * defective
    return group, defective, rng.integers(0, 3, defective.sum())


def metrics(ranked, limit):
    return np.array([ranked.auroc(), ranked.average_precision(), ranked.aupro(limit)])


def errors(ranked, limit):
    return np.array(
        [ranked.auroc_error(), ranked.average_precision_error(), ranked.aupro_error(limit)]
    )


def test_curves_and_areas_are_those_of_scikit_learn(pixels):
    group, defective, _ = pixels
    ranked = grouped(*pixels)
    filled = np.concatenate([[True], (ranked.good + ranked.defective) > 0])
    fpr, tpr, _ = roc_curve(defective, group, drop_intermediate=False)
    np.testing.assert_allclose(ranked.false_positive_rates()[filled], fpr, atol=1e-15)
    np.testing.assert_allclose(ranked.recalls()[filled], tpr, atol=1e-15)
    precision, _, _ = precision_recall_curve(defective, group)
    np.testing.assert_allclose(ranked.precisions()[filled], precision[::-1], atol=1e-15)
    assert ranked.auroc() == pytest.approx(roc_auc_score(defective, group), abs=1e-14)
    expected = average_precision_score(defective, group)
    assert ranked.average_precision() == pytest.approx(expected, abs=1e-14)
    # The definition of the per-region overlap, group by group.
    overlaps = [
        np.mean([np.mean(group[defective][pixels[2] == region] >= g) for region in range(3)])
        for g in range(group.max() + 1)
    ]
    np.testing.assert_allclose(ranked.overlaps()[1:][::-1], overlaps, atol=1e-14)


@pytest.mark.parametrize("limit", [0.07, 0.3, 1.0])
def test_no_order_within_groups_is_further_off_than_the_bound(pixels, limit):
    """Orders at random, the best and the worst there are, ties included."""
    group, defective, region = pixels
    coarse, bound = metrics(grouped(*pixels), limit), errors(grouped(*pixels), limit)
    rng = np.random.default_rng(0)
    one_by_one = rng.permutation(200)
    defects_first, defects_last = 1000 * defective, 1000 * ~defective + one_by_one
    worst = np.zeros(3)
    for order in (rng.integers(0, 10, 200), one_by_one, defects_first, defects_last):
        fine = metrics(grouped(2000 * group + order, defective, region), limit)
        worst = np.maximum(worst, np.abs(fine - coarse))
    assert (worst <= bound + 1e-12).all()
    # That of the areas is reached; that of the average precision nearly.
    np.testing.assert_allclose(worst[[0, 2]], bound[[0, 2]], atol=1e-12)
    assert worst[1] > 0.8 * bound[1]


def test_groups_of_one_kind_are_exact():
    """No order within them changes an area."""
    ranked = RankedPixels(
        np.array([0, 3, 0, 5]), np.array([2, 0, 1, 0]), np.array([1.0, 0, 1, 0]), 2
    )
    assert ranked.auroc_error() == ranked.aupro_error(0.3) == 0
    assert ranked.auroc() == pytest.approx(1 - 3 / (3 * 8))


def test_precision_depends_on_ties_of_defective_pixels_alone():
    """Four together, after five good pixels, have the precision of the fourth."""
    ranked = RankedPixels(np.array([5, 0]), np.array([0, 4]), np.array([0, 1.0]), 1)
    assert ranked.average_precision() == pytest.approx(4 / 9)
    one_by_one = np.mean([1 / 6, 2 / 7, 3 / 8, 4 / 9])
    assert 4 / 9 - one_by_one < ranked.average_precision_error() < 0.2


@pytest.mark.parametrize("kind", ["good", "defective"])
def test_one_kind_has_no_metrics(kind):
    nothing = np.zeros(3, dtype=int)
    ranked = RankedPixels(nothing, nothing, nothing / 1.0, 0)._replace(**{kind: nothing + 1})
    assert not ranked.has_both()
    assert np.isnan([*metrics(ranked, 0.3), *errors(ranked, 0.3)]).all()
