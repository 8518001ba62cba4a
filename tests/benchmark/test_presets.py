"""Presets name settings that exist, and figures that the papers print."""

import pytest

from skad.benchmark import PRESETS, TABLES, Preset, build_detector, published


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_detector_that_fit_accepts(name):
    preset = PRESETS[name]
    detector = build_detector(preset, "bottle", 3, {"device": "cpu"})
    members = [d for _, d in getattr(detector, "estimators", [("", detector)])]
    for member in members:
        member._validate_params()
        assert member.random_state == 3
        assert member.device == "cpu"
        if preset.method == "recontrast":
            member._begin_fit()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_published_figures_or_says_that_it_has_none(name):
    sets = ("mvtec_ad", "mvtec_loco", "visa", "aptos", "oct2017", "isic2018", "mvtec_ad_2")
    found = {d: published(name, d) for d in sets}
    values = [value for figures in found.values() for v in figures.values() for value in v.values()]
    assert bool(values) != ("no published figure" in PRESETS[name].note)
    # SuperADD finds nothing of the public cans.
    assert all(0 < value <= 100 or (name, value) == ("superadd", 0) for value in values)


def test_known_figures():
    """As printed: PatchCore supplement S1, ReConPatch Table 1, ReContrast Table 1."""
    assert published("patchcore-25", "mvtec_ad")["image_auroc"]["avg"] == 99.1
    assert published("patchcore-1", "mvtec_ad")["aupro"]["avg"] == 93.1
    assert published("recontrast", "mvtec_ad")["image_auroc"]["avg"] == 99.5
    assert len(published("patchcore-10", "mvtec_ad")["pixel_auroc"]) == 16
    assert published("patchcore-10", "btad") == {}
    assert published("unheard-of", "mvtec_ad") == {}


def test_known_figures_of_spade_and_padim():
    """As printed in PatchCore's supplement, S1 to S3 and S5."""
    found = {name: published(name, "mvtec_ad") for name in ("spade", "padim")}
    assert [figures["image_auroc"] for figures in found.values()] == [{"avg": 85.5}, {"avg": 95.3}]
    assert [len(figures["pixel_auroc"]) for figures in found.values()] == [16, 16]
    assert found["spade"]["aupro"]["tile"] == 75.6
    assert found["padim"]["pixel_auroc"]["zipper"] == 98.5
    assert published("spade-1shot", "mvtec_ad")["image_auroc"] == {"avg": 71.6}
    assert published("padim-50shot", "mvtec_ad")["aupro"] == {"avg": 90.4}
    detectors = [build_detector(PRESETS[f"spade-{n}shot"], "bottle", 0, {}) for n in (1, 20, 50)]
    assert [detector.k for detector in detectors] == [1, 20, 50]


@pytest.mark.parametrize("name", ["patchcore-1", "reconpatch", "patchcore-ensemble"])
def test_papers_score_by_patches_and_keep_one_percent(name):
    detector = build_detector(PRESETS[name], "bottle", 0, {})
    members = [d for _, d in getattr(detector, "estimators", [("", detector)])]
    assert {d.image_score for d in [detector, *members]} == {"patch"}
    assert {member.coreset_size for member in members} == {0.01}


def test_reconpatch_trains_for_as_long_as_the_paper():
    one = build_detector(PRESETS["reconpatch-k3"], "bottle", 0, {})
    assert (one.epochs, one.lr) == (120, 1e-5)
    members = build_detector(PRESETS["reconpatch-ensemble-320"], "bottle", 0, {}).estimators
    assert {(d.epochs, d.lr) for _, d in members} == {(60, 1e-6)}


def test_tables_hold_presets():
    for rows in TABLES.values():
        assert set(rows) <= set(PRESETS)
    assert not set(TABLES) & set(PRESETS)


def test_medical_images_have_settings_of_their_own():
    """ReContrast, appendix B and C."""
    found = {
        name: build_detector(PRESETS["recontrast-medical"], name, 0, {})
        for name in ("aptos", "oct2017", "isic2018")
    }
    assert [d.max_iter for d in found.values()] == [1000, 1000, 2000]
    assert [d.bn for d in found.values()] == ["train", "eval", "train"]
    assert {d.batch_size for d in found.values()} == {32}
    assert (found["isic2018"].geometry, found["isic2018"].image_score) == ("crop", 1.0)
    assert build_detector(PRESETS["recontrast-B"], "aptos", 0, {}).max_iter == 1000
    assert published("recontrast-medical", "oct2017")["image_auroc"]["oct2017"] == 99.6


def test_rows_of_figures():
    """PatchCore's supplement: sizes and patches (S4), depth (S5), subsamplers (S6)."""
    largest = build_detector(PRESETS["patchcore-s448-p9"], "bottle", 0, {})
    assert (largest.image_size, largest.resize, largest.patch_size) == (448, 512, 9)
    assert len(TABLES["patchcore-figure-s4"]) == 1 + 3 * 4
    assert build_detector(PRESETS["patchcore-layers12"], "bottle", 0, {}).layers == (1, 2)
    random = build_detector(PRESETS["patchcore-random-0.001"], "bottle", 0, {})
    assert (random.coreset_method, random.coreset_size) == ("random", 0.001)


def test_titles_differ():
    assert len({preset.title for preset in PRESETS.values()}) == len(PRESETS)


def test_categories_with_settings_of_their_own():
    grid, bottle = (build_detector(PRESETS["recontrast"], c, 0, {}) for c in ("grid", "bottle"))
    assert (grid.bn, bottle.bn) == ("eval", "train")


def test_unknown_parameters_are_refused():
    preset = Preset("own", "patchcore", {})
    with pytest.raises(ValueError, match=r"no parameter 'sise'; it has .*image_size"):
        build_detector(preset, "bottle", 0, {"sise": 3})
    with pytest.raises(ValueError, match="PatchCoreDetector has no parameter 'epochs'"):
        build_detector(PRESETS["patchcore-ensemble"], "bottle", 0, {"epochs": 3})
