"""Regions against ground truth."""

import numpy as np
import pytest

from skad._images import Geometry
from skad._scoring.regions import Regions, regions_of
from skad.metrics import region_report


def literal(masks, found):
    """Pixel by pixel, with components grown by hand."""
    pixels = {"both": 0, "mask": 0, "found": 0}
    overlaps, false, in_good, n_good = [], 0, 0, 0
    for mask, called in zip(masks, found, strict=True):
        defects, regions = (components(np.argwhere(m)) for m in (mask, called))
        pixels["both"] += sum(len(d & r) for d in defects for r in regions)
        pixels["mask"] += sum(map(len, defects))
        pixels["found"] += sum(map(len, regions))
        overlaps += [sum(len(d & r) for r in regions) / len(d) for d in defects]
        false += sum(not any(r & d for d in defects) for r in regions)
        n_good += not defects
        in_good += 0 if defects else len(regions)
    precision, recall = pixels["both"] / pixels["found"], pixels["both"] / pixels["mask"]
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "iou": pixels["both"] / (pixels["mask"] + pixels["found"] - pixels["both"]),
        "overlap": np.mean(overlaps),
        "hit_rate": np.mean(np.array(overlaps) > 0),
        "false_regions_per_good_image": in_good / n_good,
        "n_defects": len(overlaps),
        "n_false_regions": false,
    }


def components(pixels):
    left, groups = {tuple(p) for p in pixels.tolist()}, []
    while left:
        group, front = set(), [left.pop()]
        while front:
            row, column = front.pop()
            group.add((row, column))
            near = {(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)} & left
            left -= near
            front += near
        groups.append(group)
    return groups


def test_against_brute_force():
    rng = np.random.default_rng(0)
    masks = rng.random((6, 12, 15)) < 0.15
    masks[4:] = False
    found = (rng.random((6, 12, 15)) < 0.1) | (masks & (rng.random((6, 12, 15)) < 0.5))
    report = region_report(masks, found)._asdict()
    for name, value in literal(masks, found).items():
        assert report[name] == pytest.approx(value), name


def test_by_hand():
    mask, found = np.zeros((2, 4, 10), int)
    mask[0, 0:4], mask[3, 9] = 1, 255  # two defects of 4 pixels and 1
    found[0:2, 2:4], found[3, 0] = 1, 1  # a region on two of them, a false one
    report = region_report([mask, None, np.zeros((3, 3))], [found, None, np.eye(3)])
    assert report.precision == 2 / 8
    assert report.recall == 2 / 5
    assert report.f1 == 4 / 13
    assert report.iou == 2 / 11
    assert report.overlap == (2 / 4 + 0) / 2
    assert report.hit_rate == 1 / 2
    assert report.false_regions_per_good_image == 1 / 2
    assert (report.n_defects, report.n_regions, report.n_false_regions) == (2, 3, 2)


def test_fractions_of_nothing():
    mask = np.eye(3)
    nothing_found = region_report([mask], [None])
    assert (nothing_found.precision, nothing_found.recall, nothing_found.f1) == (1, 0, 0)
    assert np.isnan(nothing_found.false_regions_per_good_image)
    nothing_there = region_report([None], [mask])
    assert nothing_there.precision == 0
    assert np.isnan([nothing_there.recall, nothing_there.overlap, nothing_there.hit_rate]).all()
    assert nothing_there.f1 == 0


def test_regions_of_a_detector():
    canvas = np.random.default_rng(0).random((16, 16))
    shapes = [(40, 30), (16, 16), (16, 16)]
    geometry = Geometry("squash", 16)
    regions = Regions([regions_of(canvas, 0.9, geometry, shape) for shape in shapes], shapes)
    masks = [np.random.default_rng(1).random(shape) < 0.3 for shape in shapes]
    masks[2] = None
    expected = region_report(masks, [regions.mask(i) for i in range(3)])
    assert region_report(masks, regions) == expected


@pytest.mark.parametrize(
    ("masks", "regions", "message"),
    [
        ([], [], "no masks and regions"),
        ([np.zeros((3, 3))], [np.zeros((3, 4))], r"mask 0 has shape \(3, 3\)"),
        ([np.zeros(3)], [np.zeros(3)], r"must be \(H, W\)"),
        ([None], [np.array([[np.nan]])], "regions of image 0: contains NaN"),
        ([np.zeros((3, 3))], [], "shorter"),
    ],
)
def test_what_is_refused(masks, regions, message):
    with pytest.raises(ValueError, match=message):
        region_report(masks, regions)
