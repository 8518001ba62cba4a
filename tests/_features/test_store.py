"""The store of embeddings: same numbers, one extraction, no harm from others."""

import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import pytest
from conftest import make_detector, make_reconpatch
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import skad
from skad import FeatureStore, ReConPatchDetector
from skad._features import FeatureNet, as_feature_store
from skad._features import store as module


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


@pytest.fixture
def embedding():
    return np.random.default_rng(0).normal(size=128).astype(np.float32)


@pytest.fixture
def counted(monkeypatch):
    """Number of images that went through a backbone."""
    count = [0]
    forward = FeatureNet.forward

    def counting(self, pixels):
        count[0] += len(pixels)
        return forward(self, pixels)

    monkeypatch.setattr(FeatureNet, "forward", counting)
    return count


def files(store):
    return sorted(store.path.glob("*/*.features"))


class TestFiles:
    def test_come_back_bit_by_bit(self, store, embedding):
        assert store.get("aa1") is None
        store.put("aa1", embedding)
        np.testing.assert_array_equal(store.get("aa1"), embedding)
        assert store.get("aa1").dtype == np.float32

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: content[:-1],
            lambda content: b"",
            lambda content: content[:60] + bytes([content[60] ^ 1]) + content[61:],
            lambda content: b"x" + content[1:],
            lambda content: content + b"more",
        ],
        ids=["truncated", "empty", "flipped", "other magic", "longer"],
    )
    def test_damage_is_noticed(self, store, embedding, damage):
        store.put("aa1", embedding)
        (file,) = files(store)
        file.write_bytes(damage(file.read_bytes()))
        assert store.get("aa1") is None

    def test_no_unfinished_file_is_left_by_a_failure(self, store, embedding, monkeypatch):
        def failing(*args):
            raise OSError("No space left on device")

        monkeypatch.setattr(os, "replace", failing)
        with pytest.raises(OSError, match=r"cannot be written .*No space.*memory=None"):
            store.put("aa1", embedding)
        assert not list(store.path.glob("*/*"))

    def test_the_ones_not_asked_for_longest_go_first(self, tmp_path, embedding):
        store = FeatureStore(tmp_path, max_size=3 * 600)
        for i, key in enumerate(["aa1", "bb2", "cc3"]):
            store.put(key, embedding)
            os.utime(store._file(key), (1000 + i, 1000 + i))
        assert store.get("aa1") is not None  # asked for: now the youngest
        store.put("dd4", embedding)
        store.reduce()
        assert store.get("bb2") is None
        assert all(store.get(key) is not None for key in ("aa1", "cc3", "dd4"))

    def test_its_size_is_bounded_as_it_grows(self, tmp_path, embedding, monkeypatch):
        monkeypatch.setattr(module, "_LOOK_EVERY", 2)
        store = FeatureStore(tmp_path, max_size=1300)  # two files
        for i in range(11):
            store.put(f"{i:02d}", embedding)
        assert len(files(store)) == 2

    def test_remains_of_killed_processes_go(self, store, embedding):
        store.put("aa1", embedding)
        folder = files(store)[0].parent
        for name in ("x.part", "aa9.claim"):
            (folder / name).touch()
            os.utime(folder / name, (1000, 1000))
        (folder / "aa8.claim").touch()  # of a process at work
        store.reduce()
        assert {p.name for p in folder.iterdir()} == {"aa1.features", "aa8.claim"}

    def test_sizes_that_are_none(self, tmp_path):
        with pytest.raises(ValueError, match="neither a number of bytes"):
            FeatureStore(tmp_path, max_size="plenty")


class TestClaims:
    def test_one_process_makes_it_the_others_wait(self, store, embedding):
        assert store.claim("aa1")
        assert not store.claim("aa1")
        found = []
        waiting = threading.Thread(target=lambda: found.append(store.wait("aa1")))
        waiting.start()
        time.sleep(0.05)
        assert not found
        store.put("aa1", embedding)
        store.release("aa1")
        waiting.join()
        np.testing.assert_array_equal(found[0], embedding)

    def test_a_killed_process_is_not_waited_for(self, store):
        assert store.claim("aa1")
        os.utime(store._file("aa1").with_suffix(".claim"), (1000, 1000))
        assert store.wait("aa1") is None
        assert store.claim("aa1")

    def test_a_process_that_gave_up(self, store):
        assert store.claim("aa1")
        store.release("aa1")
        assert store.wait("aa1") is None


class TestDetectors:
    @pytest.mark.parametrize(
        "params",
        [{}, {"geometry": "pad", "b": 2}, {"aggregation": "adaptive", "target_dim": 32}],
        ids=str,
    )
    def test_scores_are_the_same_with_and_without(self, store, good, defective, params):
        plain = make_detector(**params).fit(good)
        for _ in range(2):  # filling it, reading it
            stored = make_detector(**params, memory=store).fit(good)
            np.testing.assert_array_equal(stored.bank_.vectors, plain.bank_.vectors)
            assert stored.offset_ == plain.offset_
            np.testing.assert_array_equal(
                stored.predict_heatmap(defective), plain.predict_heatmap(defective)
            )

    def test_a_second_fit_needs_no_backbone(self, store, good, counted):
        make_detector(memory=store).fit(good)
        first = counted[0]
        assert first >= len(good)
        make_detector(memory=store, n_neighbors=3, coreset_size=0.5).fit(good).score_samples(good)
        make_detector(memory=store, max_memory="400kB").fit(good)
        assert counted[0] == first

    def test_equal_images_are_embedded_once(self, store, good, counted):
        det = make_detector(memory=store).fit(good)
        before = counted[0]
        np.testing.assert_array_equal(
            det.score_samples([good[0]] * 3), det.score_samples(good[:1]).repeat(3)
        )
        assert counted[0] == before
        assert len(files(store)) == len(good)

    @pytest.mark.parametrize(
        "params",
        [
            {"levels": (1, 2)},
            {"patch_size": 5},
            {"image_size": 64},
            {"weights": None},
            {"precision": "bfloat16"},
            {"aggregation": "adaptive"},
            {"geometry": "crop", "resize": 36},
        ],
        ids=str,
    )
    def test_another_extractor_has_files_of_its_own(self, store, good, params):
        make_detector(memory=store).fit(good)
        changed = make_detector(**params, memory=store).fit(good)
        assert len(files(store)) == 2 * len(good)
        alone = make_detector(**params).fit(good)
        np.testing.assert_array_equal(changed.score_samples(good), alone.score_samples(good))

    def test_damaged_files_are_made_again(self, store, good):
        make_detector(memory=store).fit(good)
        for file in files(store)[::2]:
            file.write_bytes(file.read_bytes()[:-9])
        again, plain = make_detector(memory=store).fit(good), make_detector().fit(good)
        np.testing.assert_array_equal(again.score_samples(good), plain.score_samples(good))
        assert all(store.get(file.stem) is not None for file in files(store))

    def test_search_extracts_every_image_once(self, store, good, defective, counted):
        """Twelve candidates, three folds and the refit; the next search extracts nothing."""
        X = np.concatenate([good, defective])
        y = np.repeat([1, -1], [len(good), len(defective)])
        grid = {"k": [3, 5, 7], "alpha": [0.25, 0.75], "m": [0.5, 1.0]}
        detector = make_reconpatch(memory=store, epochs=1, n_jobs=1, batch_size=1)
        search = GridSearchCV(detector, grid, cv=StratifiedKFold(3))
        search.fit(X, y)
        # The extractor looks at one black image before it starts.
        assert counted[0] - len(X) in (0, 1)
        before = counted[0]
        again = GridSearchCV(detector, {**grid, "sigma": [1.0]}, cv=StratifiedKFold(3)).fit(X, y)
        assert counted[0] == before
        np.testing.assert_array_equal(
            again.best_estimator_.score_samples(X),
            again.best_estimator_.set_params(memory=None).score_samples(X),
        )

    def test_a_search_in_two_processes_shares_the_work(self, tmp_path, good, defective):
        log = tmp_path / "log"
        log.mkdir()
        X = np.concatenate([good, 255 - good, defective])
        y = np.repeat([1, -1], [2 * len(good), len(defective)])
        defaults = make_reconpatch(
            memory=tmp_path / "store", epochs=1, n_jobs=1, batch_size=1
        ).get_params()
        grid = {"k": [3, 5], "alpha": [0.25, 0.75], "m": [0.5, 1.0]}
        # A fit that fails would extract nothing and pass unseen.
        search = GridSearchCV(
            Logging(**defaults), grid, cv=StratifiedKFold(3), n_jobs=2, error_score="raise"
        ).fit(X, y)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert {file.name for file in log.iterdir()} - {str(os.getpid())}
        extracted = sum(len(file.read_bytes()) for file in log.iterdir())
        # Each process looks at a black image first: two workers, and this one for the refit.
        assert len(X) <= extracted <= 1.3 * len(X) + 3

    def test_unwritable_folder(self, good, tmp_path):
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(OSError, match=r"the feature store .* cannot be written"):
            make_detector(memory=file).fit(good)


class Logging(ReConPatchDetector):
    """Writes a byte to a file of this process for every image that the backbone sees.

    The files lie beside the store: a process that was there before the test knows no more of it
    than the detector tells.
    """

    def _fit_images(self, images, progress):
        with self.logged():
            return super()._fit_images(images, progress)

    def _score_batch(self, batch, maps):
        with self.logged():
            return super()._score_batch(batch, maps)

    @contextmanager
    def logged(self):
        forward = FeatureNet.forward

        def logging(net, pixels):
            with (Path(self.memory).parent / "log" / str(os.getpid())).open("ab") as file:
                file.write(b"." * len(pixels))
            return forward(net, pixels)

        FeatureNet.forward = logging
        try:
            yield
        finally:
            FeatureNet.forward = forward


class TestMemory:
    def test_kinds(self, tmp_path, store):
        assert as_feature_store(None) is None
        assert as_feature_store(store) is store
        assert as_feature_store(tmp_path).path == str(tmp_path)
        assert as_feature_store(str(tmp_path)) is as_feature_store(tmp_path)
        assert as_feature_store(joblib.Memory(None)) is None
        cached = as_feature_store(joblib.Memory(tmp_path, verbose=0))
        assert cached.path == str(tmp_path / "skad")

    def test_anything_else(self, good):
        with pytest.raises(ValueError, match="memory"):
            make_detector(memory=3).fit(good)

    def test_may_change_after_fit(self, store, good):
        det = make_detector(memory=store).fit(good)
        scores = det.score_samples(good)
        np.testing.assert_array_equal(det.set_params(memory=None).score_samples(good), scores)

    def test_is_public(self):
        assert skad.FeatureStore is FeatureStore
        assert "max_size='10GB'" in repr(FeatureStore("x"))
