"""ReContrastDetector: threshold, ablations, interruption, warm starts, memory."""

import copy
import os
import signal
import threading

import numpy as np
import pytest
import tiny_resnet
import torch
from conftest import make_detector, make_recontrast
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import skad._reconstruction
from skad import ScoreFusionDetector
from skad._learning import ReContrastTraining
from skad._reconstruction import held_out

FEW = pytest.mark.filterwarnings("ignore:target_false_alarm_rate:UserWarning")
pytestmark = FEW


@pytest.fixture(autouse=True)
def python_handles_ctrl_c():
    """Whatever runs the tests may ignore SIGINT, as shells do for jobs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def arrays_equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def make_tiny(**params):
    """A detector of a network that is too narrow to find anything: a third of the time."""
    return make_recontrast(**{"backbone": "tiny_resnet", **params})


@pytest.fixture(scope="module")
def fitted(good):
    return make_recontrast(max_iter=40).fit(good)


@pytest.fixture(scope="module")
def brief(good):
    """Three steps: for what does not depend on how well the network was trained."""
    return make_tiny(max_iter=3).fit(good)


class TestFit:
    def test_finds_defects(self, fitted, good, defective):
        assert fitted.score_samples(defective).max() < fitted.score_samples(good).min()
        assert (fitted.predict(defective) == -1).all()

    def test_heat_maps_show_them(self, good, defective):
        det = make_recontrast(image_size=64, max_iter=20).fit(good)
        maps = det.predict_heatmap(defective)
        assert maps.shape == (4, 40, 48)
        peaks = [np.unravel_index(heatmap.argmax(), heatmap.shape) for heatmap in maps]
        assert all(8 <= row < 20 and 30 <= column < 42 for row, column in peaks)

    def test_learned_state(self, fitted, good):
        assert fitted.n_iter_ == 40
        assert fitted.loss_curve_.shape == fitted.feature_diversity_.shape == (40,)
        assert fitted.loss_curve_.dtype == np.float64
        assert fitted.loss_curve_[-1] < fitted.loss_curve_[0] / 2
        assert all(type(array) is np.ndarray for array in fitted.network_.values())
        assert fitted.n_images_ == len(good)

    def test_training_helps(self, fitted, good, defective):
        """Good images are reconstructed, defective ones are not: before, neither is."""
        before, after = (
            det.score_samples(defective).mean() / det.score_samples(good).mean()
            for det in (make_recontrast(max_iter=0).fit(good), fitted)
        )
        assert before < 1.05
        assert after > 1.5

    def test_image_score_is_the_maximum_of_the_map(self, good):
        det = make_tiny(max_iter=2).fit(good[:, :32, :32])
        maps, scores = det.predict_heatmap(good[:, :32, :32], return_scores=True)
        np.testing.assert_allclose(maps.max(axis=(1, 2)), -scores, rtol=1e-6)

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_repeats_bitwise(self, good, precision):
        fits = [make_tiny(train_precision=precision, max_iter=3).fit(good) for _ in range(2)]
        assert arrays_equal(fits[0].network_, fits[1].network_)
        np.testing.assert_array_equal(*(det.score_samples(good) for det in fits))

    def test_repeats_bitwise_in_threads(self, good, brief):
        found = [None, None]

        def work(i):
            found[i] = make_tiny(max_iter=3).fit(good)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(arrays_equal(det.network_, brief.network_) for det in found)

    def test_leaves_the_global_generator_alone(self, good):
        before = torch.get_rng_state()
        make_tiny(max_iter=1).fit(good)
        assert torch.equal(torch.get_rng_state(), before)

    def test_seeds_differ(self, good, brief):
        other = make_tiny(max_iter=3, random_state=1).fit(good)
        assert not arrays_equal(other.network_, brief.network_)

    def test_scores_do_not_depend_on_the_batch(self, fitted, good):
        together = fitted.score_samples(good)
        alone = np.concatenate([fitted.score_samples(good[i : i + 1]) for i in range(len(good))])
        np.testing.assert_array_equal(together, alone)
        copy = clone(fitted).set_params(batch_size=5)
        copy.__dict__.update({k: v for k, v in vars(fitted).items() if k.endswith("_")})
        copy._params_at_fit = fitted._params_at_fit
        np.testing.assert_array_equal(copy.score_samples(good[::-1]), together[::-1])

    def test_reading_anew_or_from_memory_is_the_same(self, good):
        fits = [make_tiny(max_iter=4, max_memory=limit).fit(good) for limit in ("1GB", 1)]
        assert arrays_equal(fits[0].network_, fits[1].network_)

    @pytest.mark.parametrize("params", [{"geometry": "pad"}, {"geometry": "crop", "resize": 36}])
    def test_geometries(self, good, defective, params):
        det = make_recontrast(max_iter=4, **params).fit(good)
        assert (det.score_samples(defective) < det.score_samples(good[:4])).all()
        maps = det.predict_heatmap(good[:2])
        assert maps.shape == (2, 40, 48)
        assert np.isnan(maps).any() == (params["geometry"] == "crop")

    def test_images_of_one_network_of_the_users_own(self, good, brief):
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.body = skad._reconstruction.load_backbone(
                    "tiny_resnet", "pretrained", (1, 2, 3), torch.device("cpu")
                ).body
                self.model = self.body.model

            def forward(self, x):
                return self.body(x)

        own = make_tiny(backbone=Net(), max_iter=3).fit(good)
        np.testing.assert_array_equal(own.score_samples(good), brief.score_samples(good))

    def test_networks_of_bottleneck_blocks_with_groups(self, good):
        det = make_tiny(
            backbone="resnext50_32x4d", weights=None, max_iter=0, validation_fraction=0.1
        ).fit(good[:3])
        assert np.isfinite(det.score_samples(good[:2])).all()
        # Stage 2 on the way up: 64 groups would be the encoder's width, 32 are its groups.
        assert det.network_["decoder.stages.1.0.body.3.weight"].shape == (256, 8, 2, 2)

    def test_maps_of_good_images_are_kept_for_an_ensemble_only_and_on_disk(self, good):
        det = make_tiny(max_iter=1)
        assert det._fit(good, None).grids is None
        assert isinstance(det._fit(good, None, in_ensemble=True).grids, np.memmap)


class TestThreshold:
    def test_left_out_images(self):
        assert len(held_out(100, 0.2)) == 20
        assert len(held_out(2, 0.2)) == len(held_out(2, 0.9)) == 1
        assert len(held_out(100, 0.0)) == 0
        assert set(held_out(50, 0.1)) <= set(held_out(50, 0.3))

    def test_comes_from_them(self, fitted, good):
        held = fitted.validation_indices_
        assert len(held) == 4  # 0.3 of 12
        scores = np.sort(fitted.score_samples(good[held]))
        np.testing.assert_array_equal(fitted.calibration_scores_, scores)
        assert fitted.offset_ == scores[0]  # floor(0.2 * 5) = the lowest

    def test_they_are_not_trained_on(self, good, brief):
        other = good.copy()
        other[held_out(12, 0.3)] = 255
        assert arrays_equal(make_tiny(max_iter=3).fit(other).network_, brief.network_)

    def test_share_of_the_training_images(self, good):
        det = make_tiny(max_iter=2, contamination=0.25).fit(good)
        assert (det.predict(good) == -1).sum() == 3

    def test_without_images_left_out(self, good):
        det = make_tiny(max_iter=2, contamination=0.25, validation_fraction=0.0).fit(good)
        assert det.calibration_scores_ is None
        assert (det.predict(good) == -1).sum() == 3
        with pytest.raises(ValueError, match="validation_fraction=0"):
            det.anomaly_p_value(good)

    def test_warns_if_they_are_few(self, good):
        with pytest.warns(UserWarning, match="cannot be promised from 4 good images"):
            make_tiny(max_iter=0, target_false_alarm_rate=0.05).fit(good)

    def test_training_scores_are_those_of_left_out_images(self, fitted, good):
        held = fitted.validation_indices_
        assert fitted.training_scores_.shape == (len(good),)
        np.testing.assert_array_equal(
            np.flatnonzero(~np.isnan(fitted.training_scores_)), np.sort(held)
        )
        np.testing.assert_array_equal(
            fitted.training_scores_[held], fitted.score_samples(good[held])
        )


class TestVariants:
    @pytest.mark.parametrize(
        "params",
        [
            {"pairs": "own", "train_encoder": False},
            {"pairs": "own", "stop_gradient": False},
            {"loss": "regional"},
            {"bn": "train"},
            {"bn": "stable"},
            {"image_score": 0.1},
        ],
        ids=str,
    )
    def test_finds_defects(self, params, good, defective):
        det = make_recontrast(max_iter=6, **params).fit(good)
        assert det.score_samples(defective).max() < det.score_samples(good).min()

    def test_maps_add_up(self, good):
        """Both = frozen + trained (Table A6)."""
        maps = [
            make_tiny(max_iter=3, maps=maps, smoothing=0).fit(good).predict_heatmap(good[:2])
            for maps in ("both", "frozen", "trained")
        ]
        np.testing.assert_allclose(maps[0], maps[1] + maps[2], rtol=1e-4)

    def test_a_frozen_encoder_is_not_stored(self, good):
        det = make_tiny(max_iter=1, pairs="own", train_encoder=False).fit(good)
        assert not any(name.startswith(("encoder", "heads")) for name in det.network_)

    def test_many_categories(self, good, defective):
        other = np.ascontiguousarray(good.swapaxes(1, 2))  # stripes in the other direction
        det = make_recontrast(max_iter=20).fit([*good, *other])
        damaged = [*defective, *np.ascontiguousarray(defective.swapaxes(1, 2))]
        assert det.score([*good, *other, *damaged], np.repeat([1, -1], [24, 8])) > 0.95

    def test_grid_search(self, good, defective):
        X = np.concatenate([good, defective])
        y = np.repeat([1, -1], [len(good), len(defective)])
        search = GridSearchCV(
            make_recontrast(max_iter=3), {"alpha": [0.0, 1.0]}, cv=StratifiedKFold(2)
        ).fit(X, y)
        assert search.best_score_ > 0.9


class TestWarmStart:
    def test_goes_on_as_if_never_stopped(self, good, brief):
        # The level of hard mining depends on the length of the whole training.
        det = make_tiny(max_iter=3, warm_start=True)
        stop_after(det, 1, good)  # in the middle of an epoch of two steps
        assert det.n_iter_ == 1
        det.fit(good)
        assert det.n_iter_ == 3
        assert arrays_equal(det.network_, brief.network_)
        np.testing.assert_array_equal(det.loss_curve_, brief.loss_curve_)
        np.testing.assert_array_equal(det.score_samples(good), brief.score_samples(good))

    def test_survives_a_pickle(self, good):
        import pickle

        det = make_tiny(max_iter=1, warm_start=True).fit(good)
        loaded = pickle.loads(pickle.dumps(det))
        for d in (det, loaded):
            d.set_params(max_iter=3).fit(good)
        assert loaded.n_iter_ == 3
        assert arrays_equal(det.network_, loaded.network_)

    def test_nothing_left_to_do(self, good):
        det = make_tiny(max_iter=1, warm_start=True).fit(good)
        before = det.network_
        with pytest.warns(UserWarning, match="raise max_iter to train on"):
            det.fit(good)
        assert arrays_equal(det.network_, before)
        assert det.n_iter_ == 1

    def test_another_network_is_refused(self, good):
        det = make_tiny(max_iter=1, warm_start=True).fit(good)
        with pytest.raises(ValueError, match="another image_size: set it back"):
            det.set_params(image_size=64).fit(good)
        det.set_params(image_size=32, max_iter=2).fit(good)  # what was learned is still there
        assert det.n_iter_ == 2

    def test_without_it_fit_starts_anew(self, good, brief):
        det = copy.deepcopy(brief)
        assert not hasattr(det, "_resumable")
        assert det.fit(good).n_iter_ == 3


def stop_after(det, steps, X, stop=lambda: os.kill(os.getpid(), signal.SIGINT)):
    """Fit and press Ctrl-C in the middle of a step."""
    step = ReContrastTraining.step

    def step_and_stop(self, pixels):
        if self.n_iter == steps - 1:
            stop()
        step(self, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReContrastTraining, "step", step_and_stop)
        with pytest.warns(ConvergenceWarning, match=f"after {steps} of"):
            det.fit(X)
    return det


class TestInterruption:
    def test_leaves_a_usable_detector(self, good, defective):
        det = stop_after(make_recontrast(max_iter=1000), 6, good)
        assert det.n_iter_ == len(det.loss_curve_) == 6
        assert (det.score_samples(defective) < det.score_samples(good[:4])).all()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_training_may_go_on(self, good, brief):
        det = stop_after(make_tiny(max_iter=3), 2, good)
        assert det.set_params(warm_start=True).fit(good).n_iter_ == 3
        assert arrays_equal(det.network_, brief.network_)

    def test_before_the_first_step(self, good, monkeypatch):
        def interrupted(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(ReContrastTraining, "step", interrupted)
        det = make_recontrast()
        with pytest.raises(KeyboardInterrupt):
            det.fit(good)
        assert not hasattr(det, "network_")

    def test_a_failure_leaves_it_unfitted(self, brief, good, monkeypatch):
        def failing(*args):
            raise RuntimeError("out of memory")

        det = copy.deepcopy(brief)
        monkeypatch.setattr(ReContrastTraining, "step", failing)
        with pytest.raises(RuntimeError, match="out of memory"):
            det.fit(good)
        with pytest.raises(ValueError, match="not fitted"):
            det.score_samples(good)


class TestErrors:
    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"image_size": 40}, "not a multiple of 32.*use 32 or 64"),
            ({"image_size": 16}, "use 32"),
            ({"train_encoder": False}, 'pairs="own"'),
            ({"validation_fraction": 0.0}, "contamination=<fraction>"),
            ({"max_memory": "lots"}, "max_memory"),
            ({"backbone": "deit_tiny_patch16_224", "weights": None}, "strides 16; .*Use a CNN"),
            ({"bn": "never"}, "bn"),
            ({"warmup_fraction": 1.5}, "warmup_fraction"),
            ({"image_score": "patch"}, "image_score"),
            ({"image_score": 0.0}, "image_score"),
        ],
        ids=str,
    )
    def test_parameters(self, good, params, message):
        with pytest.raises(ValueError, match=message):
            make_tiny(**params).fit(good)

    def test_one_image(self, good):
        with pytest.raises(ValueError, match="at least two good images"):
            make_tiny().fit(good[:1])
        det = make_tiny(contamination=0.1, max_iter=2).fit(good[:1])
        assert det.predict(good[:1]).shape == (1,)

    def test_divergence(self, good):
        with pytest.raises(ValueError, match=r"diverged. Lower lr \(now 1e\+30\)"):
            make_tiny(lr=1e30, max_iter=5).fit(good)

    def test_changed_after_fit(self, brief, good):
        det = copy.deepcopy(brief)
        with pytest.raises(ValueError, match="image_score, maps changed after fit"):
            det.set_params(maps="frozen", image_score=0.5).score_samples(good)

    def test_other_weights(self, brief, good, tmp_path):
        from safetensors.torch import load_file, save_file

        state = load_file(tiny_resnet.WEIGHTS)
        name = next(n for n, t in state.items() if t.is_floating_point())
        state[name] = state[name] + 0.5
        save_file(state, tmp_path / "other.safetensors")
        det = copy.deepcopy(brief).set_params(weights=tmp_path / "other.safetensors")
        with pytest.raises(ValueError, match="not those this detector was fitted with"):
            det.score_samples(good)


class TestEnsemble:
    def test_with_patchcore(self, good, defective):
        both = ScoreFusionDetector(
            [("bank", make_detector()), ("network", make_recontrast(max_iter=6))],
            target_false_alarm_rate=0.2,
        ).fit(good)
        assert len(both.calibration_scores_) == 4  # those that both left out
        assert (both.predict(defective) == -1).all()
        assert both.predict_heatmap(defective).shape == (4, 40, 48)

    def test_of_seeds(self, good, defective):
        members = [(f"seed{i}", make_recontrast(max_iter=4, random_state=i)) for i in range(2)]
        both = ScoreFusionDetector(members, target_false_alarm_rate=0.2).fit(good)
        assert (both.score_samples(defective) < both.score_samples(good[:4])).all()

    def test_needs_images_left_out(self, good):
        alone = make_tiny(max_iter=1, validation_fraction=0.0, contamination=0.1)
        with pytest.raises(ValueError, match="estimator 'network' holds no good image out"):
            ScoreFusionDetector([("network", alone)]).fit(good)
