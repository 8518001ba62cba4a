"""The loader is a whitelist: what a detector cannot be is refused, by name, before anything scores."""

import copy
import json
import random
import re

import numpy as np
import pytest
import rewriting
import tiny_resnet  # noqa: F401  (registers a backbone, whose ReContrast makes a small file)
from conftest import make_detector, make_reconpatch, make_recontrast
from rewriting import entry, state_of

import skad
from skad._images import Geometry
from skad.persistence import _checks, _declared

TINY = {"backbone": "tiny_resnet"}


def make_fusion():
    members = [
        ("a", make_detector(coreset_size=6)),
        ("b", make_detector(coreset_size=6, layers=(2,))),
    ]
    return skad.ScoreFusionDetector(members, target_false_alarm_rate=0.2)


MAKERS = {
    "patchcore": lambda: make_detector(coreset_size=6, layers=(2, 3), patch_size=3),
    "reconpatch": lambda: make_reconpatch(coreset_size=6, epochs=1),
    "recontrast": lambda: make_recontrast(**TINY, max_iter=2, warm_start=True),
    "fusion": make_fusion,
}


@pytest.fixture(scope="module")
def fitted(good):
    return {name: make().fit(good) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    """Content and tensors of a file of every detector."""
    folder = tmp_path_factory.mktemp("saved")
    for name, detector in fitted.items():
        skad.save(detector, folder / f"{name}.skad")
    return {name: rewriting.parts(folder / f"{name}.skad") for name in fitted}


@pytest.fixture
def load(saved, tmp_path):
    """Load a file after a change of its content and tensors."""

    def load(name, change):
        content, tensors = copy.deepcopy(saved[name][0]), dict(saved[name][1])
        change(content, tensors)
        rewriting.write(tmp_path / "det.skad", content, tensors)
        return skad.load(tmp_path / "det.skad")

    return load


@pytest.fixture
def refuses(load, tmp_path):
    def refuses(name, attribute, change):
        with pytest.raises(ValueError, match=re.escape(attribute)) as raised:
            load(name, change)
        assert str(tmp_path / "det.skad") in str(raised.value)
        assert len(str(raised.value)) < 1000

    return refuses


@pytest.fixture
def refuses_value(refuses):
    def refuses_value(name, attribute, value):
        def change(content, tensors):
            entry(content, attribute)[1] = value

        refuses(name, attribute.split(".0")[0], change)

    return refuses_value


def test_every_attribute_of_every_detector_is_declared(fitted):
    for detector in fitted.values():
        assert vars(detector).keys() - _declared.LEFT_BEHIND <= _checks.names_of(type(detector))


@pytest.mark.parametrize("name", MAKERS)
def test_each_attribute_must_be_there_once_and_no_other(fitted, saved, load, refuses, name):
    names = [pair[0] for pair in state_of(saved[name][0])]
    # Groups of their own, which older files lack.
    groups = _declared.DECLARED[type(fitted[name])].later
    alone = {attribute for group in groups if len(group) == 1 for attribute in group}
    for i, attribute in enumerate(names):
        if i % 5 and not attribute.endswith("_"):
            continue  # one of five parameters, and all that is learned
        if attribute not in alone | set(type(fitted[name])._absent_means):
            # Where others refer to what is in it, they are named.
            refuses(name, "not what skad writes", lambda c, _, i=i: state_of(c).pop(i))
        refuses(
            name, attribute, lambda content, _, i=i: state_of(content).append(state_of(content)[i])
        )
    refuses(name, "other_", lambda content, _: state_of(content).append(["other_", 1]))
    load(name, lambda *_: None)


NUMBERS = [None, "1", float("nan"), float("inf"), -float("inf"), True, {"list": []}, 1e300]
COUNTS = [None, 0, -1, 1.5, "1", True, 10**30]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("attribute", ["offset_", "heatmap_threshold_", "n_images_"])
def test_numbers(refuses_value, name, attribute):
    for value in COUNTS if attribute == "n_images_" else NUMBERS:
        refuses_value(name, attribute, value)


PARAMETERS = [
    ("b", 1),
    ("b", "9"),
    ("backbone", None),
    ("batch_size", 0),
    ("contamination", 0.7),
    ("coreset_size", 1.5),
    ("device", 3),
    ("distance", "cosine"),
    ("geometry", "fit"),
    ("image_size", 2**40),
    ("layers", {"tuple": []}),
    ("layers", {"tuple": ["2"]}),
    ("layers", 2),
    ("max_memory", "4XB"),
    ("memory", "/tmp"),
    ("n_jobs", 0),
    ("random_state", -1),
    ("smoothing", 1e300),
    ("target_false_alarm_rate", 1),
    ("weights", 3),
    ("weights", "a\0b"),
    ("image_shape", {"list": [1, 2.5]}),
]


@pytest.mark.parametrize(("parameter", "value"), PARAMETERS)
def test_parameters(refuses_value, parameter, value):
    refuses_value("patchcore", parameter, value)


@pytest.mark.parametrize("name", MAKERS)
def test_no_folder_ever_comes_from_a_file(fitted, refuses, name, tmp_path):
    """Scoring would write to it, and delete in it."""

    def change(content, _):
        place = "estimators_.0.memory" if name == "fusion" else "memory"
        entry(content, place)[1] = str(tmp_path)

    if "memory" in fitted[name].get_params() or name == "fusion":
        refuses(name, "memory", change)


PARTS = [
    ("geometry_.mode", "pad"),
    ("geometry_.image_size", 64),
    ("geometry_.resize", 64),
    ("feature_spec_.layers", {"tuple": [1, 2]}),
    ("feature_spec_.patch_size", 5),
    ("feature_spec_.backbone", "resnet18"),
    ("feature_spec_.precision", "bfloat16"),
    ("bank_.index", "Flat"),
    ("bank_.sources", {"array": "array0"}),
    ("bank_", None),
    ("_growth.cover.radius", -1.0),
    ("_growth.cover.net_size", 7),
    ("coreset_radius_", 0.125),
    ("_growth.log.peaks", {"array": "array0"}),
    ("_growth.log.out_of_sample", None),
    ("calibration_scores_", {"array": "array1"}),
    ("weights_digest_", 5),
    ("_growth.seed", 2**40),
    ("_params_at_fit", None),
    ("_params_at_fit.n_neighbors", 100),
    ("_params_at_fit.image_size", 64),
]


@pytest.mark.parametrize(("attribute", "value"), PARTS)
def test_parts(refuses_value, refuses, attribute, value):
    if attribute == "_params_at_fit.n_neighbors":
        # More than the bank holds.
        refuses(
            "patchcore", "bank_.vectors", lambda c, _: entry(c, attribute).__setitem__(1, value)
        )
    elif attribute == "_params_at_fit.image_size":
        refuses("patchcore", "geometry_", lambda c, _: entry(c, attribute).__setitem__(1, value))
    else:
        name = "_growth" if attribute == "coreset_radius_" else attribute
        refuses(
            "patchcore",
            name.split(".")[0],
            lambda content, _: entry(content, attribute).__setitem__(1, value),
        )


def array_of(content, tensors, place):
    return entry(content, place)[1]["array"]


ARRAYS = {
    "NaN": lambda a: np.where(np.arange(a.size).reshape(a.shape) == a.size - 1, np.nan, a),
    "inf": lambda a: np.where(np.arange(a.size).reshape(a.shape) == 0, -np.inf, a),
    "near the end of float32": lambda a: np.where(a == a.flat[0], 3e38, a),
    "of another type": lambda a: a.astype("float16"),
    "flat": lambda a: a.reshape(-1)[None, None],
    "shorter": lambda a: a[:-1],
    "empty": lambda a: a[:0],
}


@pytest.mark.parametrize("how", ARRAYS)
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("patchcore", "bank_.vectors"),
        ("reconpatch", "components_"),
        ("patchcore", "_growth.log.peaks"),
        ("fusion", "estimators_.1.bank_.vectors"),
    ],
)
def test_arrays(refuses, name, place, how):
    def change(content, tensors):
        key = array_of(content, tensors, place)
        changed = ARRAYS[how](tensors[key])
        changed = changed if how == "of another type" else changed.astype(tensors[key].dtype)
        tensors[key] = np.ascontiguousarray(changed)

    refuses(
        name,
        {"estimators_.1.bank_.vectors": "estimators_[1].bank_"}.get(place, place.split(".")[0]),
        change,
    )


class TestRelations:
    def test_sources_of_images_that_there_are(self, refuses):
        def change(content, tensors):
            key = array_of(content, tensors, "bank_.sources")
            tensors[key] = tensors[key] + 12

        refuses("patchcore", "bank_.sources", change)

    def test_calibration_scores_in_their_order(self, refuses):
        def change(content, tensors):
            key = array_of(content, tensors, "calibration_scores_")
            tensors[key] = tensors[key][::-1].copy()

        refuses("patchcore", "calibration_scores_", change)

    @pytest.mark.parametrize("name", ["patchcore", "fusion"])
    def test_one_calibration_score_at_least(self, refuses, name):
        def change(content, tensors):
            key = array_of(content, tensors, "calibration_scores_")
            tensors[key] = tensors[key][:0]

        refuses(name, "calibration_scores_", change)

    def test_one_training_score_per_image(self, refuses):
        def change(content, tensors):
            key = array_of(content, tensors, "training_scores_")
            tensors[key] = tensors[key][:-1]

        refuses("patchcore", "training_scores_", change)

    def test_the_latest_scores_are_of_all_images(self, refuses):
        def change(content, tensors):
            key = array_of(content, tensors, "_growth.log.n_images")
            tensors[key] = tensors[key] - 1

        refuses("patchcore", "_growth.log", change)

    @pytest.mark.parametrize("part", ["encoder.", "heads_trained.", "decoder."])
    def test_parts_of_a_network(self, refuses, part):
        def change(content, _):
            pair = entry(content, "network_")
            pair[1]["dict"] = [p for p in pair[1]["dict"] if not p[0].startswith(part)]

        refuses("recontrast", "network_", change)

    def test_variances_of_a_network(self, refuses):
        def change(content, tensors):
            pairs = entry(content, "network_")[1]["dict"]
            key = next(value["array"] for name, value in pairs if name.endswith("running_var"))
            tensors[key] = -1 - tensors[key]

        refuses("recontrast", "network_", change)

    @pytest.mark.parametrize("slot", ["exp_avg", "exp_avg_sq", "step"])
    def test_moments_of_an_optimiser(self, refuses, slot):
        def change(content, tensors):
            key = entry(content, "_resumable.optimizer")[1]["dict"]
            name = next(value["array"] for moment, value in key if moment.endswith(slot))
            tensors[name] = np.zeros((3, 3), "float32")

        refuses("recontrast", "_resumable", change)

    def test_members_are_those_that_are_weighed(self, refuses):
        def change(content, _):
            members = entry(content, "_members")[1]["list"]
            members.reverse()

        refuses("fusion", "estimators_", change)

    def test_names_of_members(self, refuses_value):
        refuses_value("fusion", "_names", {"list": ["a", "a"]})
        refuses_value("fusion", "_names", {"list": ["a"]})

    @pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
    def test_spreads(self, refuses, value):
        refuses(
            "fusion",
            "_members[0].patch.spread",
            lambda content, _: entry(content, "_members.0.patch.spread").__setitem__(1, value),
        )

    def test_members_must_be_fitted(self, refuses):
        def change(content, _):
            inside = entry(content, "estimators_.0")[1]
            given = entry(content, "estimators.0.1")[1]
            inside["state"] = given["state"]

        refuses("fusion", "_members", lambda *parts: change(*parts))

    @pytest.mark.parametrize(
        "value",
        [np.inf, -np.inf, 1e308, -1e16, np.nan],
        ids=["inf", "-inf", "huge", "large", "NaN"],
    )
    @pytest.mark.parametrize("which", [slice(None), 0, -1], ids=["all", "first", "last"])
    def test_scores_that_a_threshold_would_be_made_of(self, refuses, value, which):
        """After partial_fit everything would be good."""

        def change(content, tensors):
            key = array_of(content, tensors, "_growth.log.out_of_sample")
            tensors[key] = tensors[key].copy()
            tensors[key][which] = value

        refuses("patchcore", "_growth", change)

    def test_a_score_that_cannot_be_is_that_of_a_single_image(self, good, tmp_path, load):
        alone = make_detector(contamination=0.1).fit(good[:1])
        skad.save(alone, tmp_path / "alone.skad")
        loaded = skad.load(tmp_path / "alone.skad")
        assert np.isnan(loaded._growth.log.out_of_sample).all()
        content, tensors = rewriting.parts(tmp_path / "alone.skad")
        key = array_of(content, tensors, "_growth.log.n_images")
        tensors[key] = tensors[key] + 1
        entry(content, "n_images_")[1] = 2
        rewriting.write(tmp_path / "alone.skad", content, tensors)
        with pytest.raises(ValueError, match="NaN of a single image"):
            skad.load(tmp_path / "alone.skad")

    @pytest.mark.parametrize(
        ("attribute", "value", "named"),
        [
            ("_growth.cover", None, "_growth.cover"),
            ("n_images_", 2**31 + 1, "n_images_"),
            ("n_images_", 24, "training_scores_"),
            ("_growth.n_patches", 5, "_growth.n_patches"),
            ("_growth.n_patches", 12 * 16 + 1, "_growth.n_patches"),
            ("_growth.n_patches", 12 * 32**2 + 12, "_growth.n_patches"),
            ("_growth.n_patches", 2**53, "_growth.n_patches"),
            ("coreset_size", 7, "_growth.n_patches"),
            ("contamination", 0.2, "_growth.log"),
            ("coreset_method", "random", "_growth.cover"),
            ("coreset_method", "approximate", "_growth.cover"),
        ],
    )
    def test_numbers_that_belong_together(self, refuses, attribute, value, named):
        """Each alone could be: partial_fit would fail by it, or go on from what never was."""

        def change(content, _):
            entry(content, attribute)[1] = value
            if not attribute.startswith("_") and not attribute.endswith("_"):
                entry(content, f"_params_at_fit.{attribute}")[1] = value

        refuses("patchcore", named, change)

    @pytest.mark.parametrize(
        "params",
        [
            {"coreset_method": "random", "coreset_size": 0.3},
            {"coreset_method": "approximate", "coreset_size": 12},
            {"geometry": "pad", "contamination": 0.2},
            {"coreset_size": 1.0},
        ],
        ids=str,
    )
    def test_states_that_are_reached_are_read(self, good, tmp_path, params):
        """By one image at a time, and many at once."""
        detector = make_detector(**{"contamination": 0.1, **params})
        for some in (good[:1], good[1:2], good[2:9], good[9:10], good[10:]):
            detector.partial_fit(some)
            skad.save(detector, tmp_path / "det.skad")
            assert skad.load(tmp_path / "det.skad").n_images_ == detector.n_images_

    def test_an_unfitted_detector_is_none(self, refuses):
        def change(content, tensors):
            names = {"PatchCoreDetector": make_detector().get_params()}["PatchCoreDetector"]
            content["state"] = [p for p in state_of(content) if p[0] in names]
            tensors.clear()

        refuses("patchcore", "no fitted detector", change)


class TestStructure:
    @pytest.mark.parametrize(
        "content",
        [
            *(
                None,
                1,
                "text",
                [],
                {},
                {"list": []},
                {"again": 0},
                {"class": "Geometry"},
                {"odd": 1},
            ),
            {"object": "Popen", "state": [["args", "true"]]},
            {"object": "PatchCoreDetector"},
            {"object": "PatchCoreDetector", "state": [["b"]]},
            {"object": "RobustScale", "state": [["median", 0.0], ["spread", 1.0]]},
            {"object": "PatchCoreDetector", "state": {"b": 1}},
            {"object": ["PatchCoreDetector"], "state": []},
        ],
        ids=str,
    )
    def test_what_is_no_detector(self, tmp_path, content):
        rewriting.write(tmp_path / "det.skad", content, {})
        with pytest.raises(ValueError, match="not what skad writes"):
            skad.load(tmp_path / "det.skad")

    def test_what_is_nested_without_end(self, tmp_path, load, refuses):
        deep = {"tuple": []}
        for _ in range(400):
            deep = {"tuple": [deep]}
        refuses("patchcore", "not what", lambda c, _: entry(c, "layers").__setitem__(1, deep))
        (tmp_path / "x").mkdir()
        text = '{"list": [' * 100_000
        with pytest.raises(ValueError, match="not what skad writes"):
            self.load_text(tmp_path / "x" / "det.skad", text + "]}" * 100_000)

    def load_text(self, path, text):
        from safetensors.numpy import save_file

        from skad.persistence import _archive

        metadata = {"skad_format": "1", "skad_version": skad.__version__, "content": text}
        metadata["checksum"] = _archive.checksum(metadata, {})
        save_file({}, path, metadata=metadata)
        skad.load(path)

    def test_what_refers_to_itself_over_and_over(self, refuses):
        """A message that spelled it out would have 2 ** 60 characters."""

        def change(content, _):
            value, first = {"tuple": [1, 1]}, 0
            for _ in range(60):
                value = {"tuple": [value, {"again": first + 1}]}
            entry(content, "layers")[1] = value

        refuses("patchcore", "layers", change)

    @pytest.mark.parametrize("number", [10**6, -1, True, "0", 0.0, None])
    def test_references_to_nothing(self, refuses, number):
        refuses(
            "patchcore", "layers", lambda c, _: entry(c, "layers").__setitem__(1, {"again": number})
        )

    def test_arrays_that_belong_to_nothing(self, refuses):
        refuses("patchcore", "spare", lambda _, tensors: tensors.update(spare=np.zeros(3)))


def test_what_could_not_be_loaded_is_not_saved(fitted, tmp_path):
    detector = copy.deepcopy(fitted["patchcore"])
    for name, value in {
        "offset_": float("nan"),
        "geometry_": Geometry("squash", 64),
        "note": "x",
    }.items():
        changed = copy.copy(detector)
        setattr(changed, name, value)
        with pytest.raises(ValueError, match=name):
            skad.save(changed, tmp_path / "det.skad")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["patchcore", "fusion"])
def test_mutations_are_refused_or_score(saved, good, tmp_path, name):
    """Structure-aware, with a right checksum: an error that says where, or finite scores."""
    path, n_scored, messages, later = tmp_path / "det.skad", 0, [], []
    for seed in range(200):
        rng = random.Random(f"{name} {seed}")
        content, tensors = copy.deepcopy(saved[name][0]), dict(saved[name][1])
        for _ in range(rng.choice([1, 1, 2])):
            if rng.random() < 0.7:
                rewriting.mutate_content(content, rng)
            else:
                rewriting.mutate_tensors(tensors, rng)
        rewriting.write(path, content, tensors)
        try:
            detector = skad.load(path)
        except ValueError as error:
            messages.append(str(error))
            continue
        try:
            scores = detector.score_samples(good[:2])
        except (ValueError, OSError) as error:
            later.append(str(error))
        else:
            n_scored += 1
            assert np.isfinite(scores).all()
    assert all(str(path) in message and len(message) < 1000 for message in messages)
    # What only a prediction can tell.
    said = "device|weights|after fit|expected queries|do not all exist|whitening_ maps"
    assert all(re.search(said, message) for message in later), later
    assert len(messages) > n_scored > 5


def test_content_is_json_of_plain_words(saved):
    """As it was in version 0.1.0: files are read by eye as well."""
    kinds = {"object", "state", "dict", "list", "tuple", "array", "texts", "again", "class"}
    assert set(re.findall(r'"(\w+)": [\[{"0-9]', json.dumps(saved["fusion"][0]))) <= kinds
