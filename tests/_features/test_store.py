"""The store of embeddings: same numbers, one extraction, no harm from others."""

import copy
import hashlib
import os
import pickle
import re
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from conftest import make_detector, make_reconpatch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import skad
from skad import FeatureStore
from skad._features import FeatureNet, as_feature_store, claims, tidying
from skad._features import store as module


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


N = 128


@pytest.fixture
def embedding():
    return np.random.default_rng(0).normal(size=N).astype(np.float32)


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
    return sorted(Path(store.path).glob("*/*.features"))


def is_sound(store, file):
    n_values = (file.stat().st_size - len(module._pack("", np.empty(0)))) // 4
    return store._get(file.stem, n_values) is not None


class TestFiles:
    def test_come_back_bit_by_bit(self, store, embedding):
        assert store._get("aa1", N) is None
        store._put("aa1", embedding)
        np.testing.assert_array_equal(store._get("aa1", N), embedding)
        assert store._get("aa1", N).dtype == np.float32

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
        store._put("aa1", embedding)
        (file,) = files(store)
        file.write_bytes(damage(file.read_bytes()))
        assert store._get("aa1", N) is None

    def test_a_file_belongs_to_its_image_and_length(self, store, embedding):
        store._put("aa1", embedding)
        for name in ("aa2", "aa11", "AA1", ""):
            other = store._file(name)
            other.parent.mkdir(exist_ok=True)
            other.write_bytes(files(store)[0].read_bytes())
            assert store._get(name, N) is None
        for n_values in (0, N - 1, N + 1, 2 * N):
            assert store._get("aa1", n_values) is None

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_no_number_is_damage(self, store, embedding, value):
        embedding[7] = value
        store._put("aa1", embedding)
        assert store._get("aa1", N) is None

    @pytest.mark.parametrize("n_bytes", [0, 1, 3, 4 * N - 1, 4 * N + 2])
    def test_bodies_of_any_length_are_read(self, store, embedding, n_bytes):
        store._put("aa1", embedding)
        body = bytes(n_bytes)
        files(store)[0].write_bytes(module._MAGIC + module._checksum("aa1", body) + body)
        assert store._get("aa1", N) is None

    def test_a_file_of_an_older_version_is_made_again(self, store, embedding):
        store._put("aa1", embedding)
        body = embedding.tobytes()
        old = hashlib.blake2b(body, digest_size=16).digest()
        files(store)[0].write_bytes(b"skad-features-2\n" + old + body)
        assert store._get("aa1", N) is None

    def test_no_unfinished_file_is_left_by_a_failure(self, store, embedding, monkeypatch):
        def failing(*args):
            raise OSError("No space left on device")

        monkeypatch.setattr(os, "replace", failing)
        with pytest.warns(UserWarning, match=r"cannot be written .*No space.*memory=None"):
            store._put("aa1", embedding)
        assert not list(Path(store.path).glob("*/*"))

    def test_the_ones_not_asked_for_longest_go_first(self, tmp_path, embedding):
        store = FeatureStore(tmp_path, max_size=3 * 600)
        for i, key in enumerate(["aa1", "bb2", "cc3"]):
            store._put(key, embedding)
            os.utime(store._file(key), (1000 + i, 1000 + i))
        assert store._get("aa1", N) is not None  # asked for: now the youngest
        store._put("dd4", embedding)
        store.reduce()
        assert store._get("bb2", N) is None
        assert all(store._get(key, N) is not None for key in ("aa1", "cc3", "dd4"))

    def test_its_size_is_bounded_as_it_grows(self, tmp_path, embedding, monkeypatch):
        store = FeatureStore(tmp_path, max_size=1300)  # two files
        for i in range(11):
            store._put(f"{i:02d}", embedding)
            assert len(files(store)) == min(i + 1, 2)

    @pytest.mark.parametrize("room", [5.5, 33.3, 70.1])
    def test_it_is_never_larger_than_it_may_be(self, tmp_path, embedding, room):
        """Not for a moment, with copies of it that write in turn, and few looks at the folder."""
        limit, looks = int(room * (4 * N + 32)), [0]
        stores = [FeatureStore(tmp_path, max_size=limit) for _ in range(3)]
        listing = tidying.Tidier._listing

        def counting(self, suffix):
            looks[0] += suffix == "features"
            return listing(self, suffix)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(tidying.Tidier, "_listing", counting)
            for i in range(150):
                stores[i % 3]._put(f"{i:03d}", embedding)
                assert sum(file.stat().st_size for file in files(stores[0])) <= limit
        assert len(files(stores[0])) > 0.8 * room - 1
        assert looks[0] <= 150 // max(1, room // 17) + 3

    @pytest.mark.parametrize("ahead", [0, 10**6, -(10**6)])
    def test_remains_of_killed_processes_go(self, store, embedding, ahead, monkeypatch):
        """By dates of the file server alone, whatever the time is there."""
        store._put("aa1", embedding)
        folder, now = files(store)[0].parent, time.time() + ahead
        monkeypatch.setattr(tidying, "_clock_of", lambda folder: now)
        for name, age in {
            "aa1.features": 5, "x.part": 1000, "y.part": 1, "aa9.claim": 1000, "aa8.claim": 1,
        }.items():  # fmt: skip
            (folder / name).touch()
            os.utime(folder / name, (now - age, now - age))
        store.reduce()
        assert {p.name for p in folder.iterdir()} == {"aa1.features", "y.part", "aa8.claim"}

    @pytest.mark.parametrize("name", ["aa1.features", "bb2.features", "c.part", "d.claim"])
    def test_one_date_in_the_future_harms_no_other_file(self, store, embedding, name):
        """Of a restore, or of a machine whose clock is wrong."""
        store._put("aa1", embedding)
        folder, now = files(store)[0].parent, time.time()
        (folder / name).touch()
        os.utime(folder / name, (now + 10**6,) * 2)
        store._claim("aa7")
        for fresh in ("x.part", "aa8.claim"):
            (folder / fresh).touch()
        store.reduce()
        left = {"c.part", "d.claim"} & {name}  # nobody works on them in the future
        expected = {"aa1.features", name, "aa7.claim", "x.part", "aa8.claim"} - left
        assert {p.name for p in folder.iterdir()} == expected
        assert all(file.stat().st_mtime < now + 1000 for file in folder.iterdir())

    def test_an_old_claim_of_a_process_that_lives_stays(self, store, embedding):
        store._put("aa1", embedding)
        with ThreadPoolExecutor(1) as another:
            another.submit(store._claim, "aa7").result()
            claim = store._claim_file("aa7")
            os.utime(claim, (1000, 1000))
            store.reduce()
            assert claim.exists()
        store.reduce()  # its thread has ended
        assert not claim.exists()

    @pytest.mark.parametrize(
        "size",
        ["plenty", -1, 0, "-1GB", "0B", None, b"1GB", True, 1.5, float("nan"), [1], "9" * 5000],
        ids=lambda size: repr(size)[:12],
    )
    def test_sizes_that_are_none(self, tmp_path, size):
        message = rf"^max_size={re.escape(repr(size)[:90])}.* is neither a number of bytes"
        with pytest.raises(ValueError, match=message) as raised:
            FeatureStore(tmp_path, max_size=size)
        assert len(str(raised.value)) < 400

    @pytest.mark.parametrize("size", [np.int64(5000), 5000, "5 kB", "5000"])
    def test_sizes(self, tmp_path, size):
        assert FeatureStore(tmp_path, max_size=size)._limit() == 5000

    @pytest.mark.parametrize("name", ["", 3, b"a"])
    def test_names_that_are_none(self, tmp_path, name):
        with pytest.raises(ValueError, match="must be a name, such as"):
            FeatureStore(tmp_path, network=name)

    def test_copies_and_pickles(self, tmp_path, embedding):
        store = FeatureStore(tmp_path, "1GB", "line3")
        for copied in (
            copy.deepcopy(store),
            pickle.loads(pickle.dumps(store)),
            clone(store, safe=False),
        ):
            assert copied == store
            assert hash(copied) == hash(store)
        assert store != FeatureStore(tmp_path, "1GB")
        assert b"Path" not in pickle.dumps(store, 2)
        old = FeatureStore.__new__(FeatureStore)
        old.__setstate__({"path": tmp_path, "max_size": "1GB", "_n_writes": 3})
        assert old == FeatureStore(tmp_path, "1GB")


class TestClaims:
    def test_one_process_makes_it_the_others_wait(self, store, embedding):
        assert store._claim("aa1")
        with ThreadPoolExecutor(1) as another:
            assert not another.submit(store._claim, "aa1").result()
            found = another.submit(store._wait, "aa1", N)
            time.sleep(0.05)
            assert not found.done()
            store._put("aa1", embedding)
            store._release("aa1")
            np.testing.assert_array_equal(found.result(), embedding)

    def test_a_process_that_gave_up(self, store):
        assert store._claim("aa1")
        store._release("aa1")
        assert store._wait("aa1", N) is None

    @pytest.mark.parametrize("at", [1, 2, 4])
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_an_interrupt_while_a_batch_is_claimed(self, store, good, monkeypatch, at, when):
        """Ctrl-C leaves nothing behind for which this process, or another one, would wait."""
        detector, claim, n = make_detector(memory=store).fit(good), FeatureStore._claim, [0]

        def interrupted(self, key):
            n[0] += 1
            taken = (n[0] == at and when == "before") or claim(self, key)
            if n[0] == at:
                raise KeyboardInterrupt
            return taken

        with monkeypatch.context() as patched:
            patched.setattr(FeatureStore, "_claim", interrupted)
            with pytest.raises(KeyboardInterrupt):
                detector.score_samples(255 - good[:4])
        assert not list(Path(store.path).glob("*/*.claim"))
        begun = time.monotonic()
        detector.score_samples(255 - good[:4])
        assert time.monotonic() - begun < 5


class TestDetectors:
    @pytest.mark.parametrize(
        "params",
        [
            {},
            {"geometry": "pad", "b": 2, "image_score": "patch"},
            {"aggregation": "adaptive", "target_dim": 32},
        ],
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
            {"layers": (1, 2)},
            {"patch_size": 5},
            {"normalize": True},
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
        assert all(is_sound(store, file) for file in files(store))

    def exchanged(self, contents):
        return contents[1:] + contents[:1]

    def not_a_number(self, contents):
        # Whoever makes a checksum can make any, but a file without numbers is damaged all the same.
        body = np.full((len(contents[0]) - module._HEADER) // 4, np.nan, "f4")
        return [
            module._MAGIC + module._checksum(key, body.tobytes()) + body.tobytes()
            for key in self.keys
        ]

    def short(self, contents):
        return [module._pack(key, np.ones(5)) for key in self.keys]

    def empty(self, contents):
        return [module._pack(key, np.empty(0)) for key in self.keys]

    def of_odd_length(self, contents):
        return [module._MAGIC + module._checksum(key, b"abc") + b"abc" for key in self.keys]

    @pytest.mark.parametrize("change", [exchanged, not_a_number, short, empty, of_odd_length])
    def test_files_of_others_change_no_score(self, store, good, change):
        """As a restore, a copy by hand or another program leaves them."""
        det = make_detector(memory=store).fit(good)
        expected = det.score_samples(good)
        self.keys = [file.stem for file in files(store)]
        changed = change(self, [file.read_bytes() for file in files(store)])
        for file, content in zip(files(store), changed, strict=True):
            file.write_bytes(content)
        np.testing.assert_array_equal(det.score_samples(good), expected)
        assert all(is_sound(store, file) for file in files(store))

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


class TestTroubles:
    """A store costs a warning, never a fit or a prediction."""

    @pytest.fixture(autouse=True)
    def untroubled(self, monkeypatch):
        monkeypatch.setattr(module, "_troubled", set())

    def folder_is_a_file(self, path, monkeypatch):
        path.touch()

    def a_folder_of_the_store_is_a_file(self, path, monkeypatch):
        path.mkdir()
        for i in range(256):
            (path / f"{i:02x}").touch()

    def nobody_may_write(self, path, monkeypatch):
        opened = os.open

        def refused(file, flags, *args, **kwargs):
            if flags & os.O_CREAT:
                raise PermissionError(13, "Permission denied", str(file))
            return opened(file, flags, *args, **kwargs)

        monkeypatch.setattr(os, "open", refused)
        monkeypatch.setattr(Path, "write_bytes", lambda *args: refused(args[0], os.O_CREAT))

    def the_disk_is_full(self, path, monkeypatch):
        def full(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        monkeypatch.setattr(Path, "write_bytes", full)

    def reading_fails(self, path, monkeypatch):
        def failing(*args):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(Path, "read_bytes", failing)

    @pytest.mark.parametrize(
        "trouble",
        [
            folder_is_a_file,
            a_folder_of_the_store_is_a_file,
            nobody_may_write,
            the_disk_is_full,
            reading_fails,
        ],
    )
    def test_one_warning_and_the_same_scores(self, good, tmp_path, monkeypatch, trouble):
        plain = make_detector().fit(good)
        trouble(self, tmp_path / "store", monkeypatch)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            det = make_detector(memory=tmp_path / "store", batch_size=2).fit(good)
            scores = det.score_samples(good)
            other = make_detector(memory=FeatureStore(tmp_path / "store")).fit(good)
        np.testing.assert_array_equal(scores, plain.score_samples(good))
        np.testing.assert_array_equal(other.bank_.vectors, plain.bank_.vectors)
        (warning,) = caught
        assert "store' cannot be" in str(warning.message)
        assert "memory=None" in str(warning.message)
        assert not list(tmp_path.glob("store/??/*.claim"))

    def test_a_store_without_room_for_one_image_is_refused(self, good, tmp_path):
        with pytest.raises(ValueError, match=r"max_size=1000 .* less than the \d+ bytes"):
            make_detector(memory=FeatureStore(tmp_path / "store", 1000)).fit(good)
        assert not (tmp_path / "store").exists()


class TestWaiting:
    """Claims that others have left: nobody waits long, and who watches is told."""

    def filled(self, store, good):
        make_detector(memory=store).fit(good)
        return files(store)

    @pytest.mark.parametrize("ahead", [3600, -3600])
    @pytest.mark.parametrize("content", ["", "another-machine\n12 34"], ids=["0.1.0", "elsewhere"])
    def test_a_clock_that_differs_does_no_harm(self, store, good, monkeypatch, ahead, content):
        monkeypatch.setattr(claims, "_PATIENCE", 0.3)
        for file in self.filled(store, good):
            file.unlink()
            claim = file.with_suffix(".claim")
            claim.write_text(content)
            os.utime(claim, (time.time() + ahead,) * 2)
        start = time.monotonic()
        make_detector(memory=store, batch_size=2).fit(good)
        assert (
            0.3 < time.monotonic() - start < 5
        )  # for all of them once, not for one after the other
        assert len(files(store)) == len(good)

    @pytest.mark.parametrize("verbose", [0, 1])
    def test_who_watches_is_told(self, store, good, monkeypatch, capsys, verbose):
        monkeypatch.setattr(claims, "_PATIENCE", 0.2)
        monkeypatch.setattr(claims, "_TELL_AFTER", 0.1)
        file = self.filled(store, good)[0]
        file.unlink()
        file.with_suffix(".claim").write_text("line3/boot/1\n12 34")
        make_detector(memory=store, verbose=verbose).fit(good)
        said = "[PatchCoreDetector] waiting for process 12 on line3 at" in capsys.readouterr().err
        assert said == bool(verbose)


class TestFolders:
    @pytest.mark.parametrize(
        "make", [str, Path, FeatureStore, lambda path: joblib.Memory(path, verbose=0)]
    )
    def test_a_relative_path_is_resolved_at_fit(self, good, tmp_path, monkeypatch, make, counted):
        for name in ("here", "there"):
            (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / "here")
        memory = make("store")
        det = make_detector(memory=memory).fit(good)
        before, n_files = counted[0], len(list((tmp_path / "here").rglob("*.features")))
        assert n_files == len(good)
        monkeypatch.chdir(tmp_path / "there")
        det.score_samples(good)
        pickle.loads(pickle.dumps(det)).score_samples(good)
        assert counted[0] == before
        assert not list((tmp_path / "there").iterdir())
        assert det.get_params()["memory"] is memory
        det.fit(good)
        assert list((tmp_path / "there").rglob("*.features"))

    def test_a_file_of_skad_knows_no_folder(self, good, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        skad.save(make_detector(memory="store").fit(good), "a.skad")
        assert str(tmp_path).encode() not in Path("a.skad").read_bytes()


class Own(torch.nn.Module):
    def __init__(self, after):
        super().__init__()
        self.after = after

    def forward(self, x):
        return [self.after(x[:, :, ::4, ::4])]


class TestOwnNetworks:
    @pytest.mark.parametrize("make", [str, FeatureStore])
    def test_they_are_stored_under_a_name_alone(self, good, tmp_path, make):
        det = make_detector(backbone=Own(torch.nn.ReLU()), memory=make(tmp_path / "store"))
        with pytest.raises(ValueError, match=r"memory=FeatureStore\(.*store', network='line3-enc"):
            det.fit(good)
        assert not (tmp_path / "store").exists()
        named = FeatureStore(tmp_path / "store", network="a")
        plain = clone(det).set_params(memory=None).fit(good)
        for _ in range(2):
            found = clone(det).set_params(memory=named).fit(good)
            np.testing.assert_array_equal(found.bank_.vectors, plain.bank_.vectors)
        assert len(files(named)) == len(good)

    def test_names_keep_them_apart(self, good, tmp_path, counted):
        def fitted(after, name):
            store = FeatureStore(tmp_path, network=name)
            det = make_detector(backbone=Own(after), memory=store).fit(good)
            return det.bank_.vectors, len(files(store)) // len(good)

        relu, one = fitted(torch.nn.ReLU(), "a")
        again, two = fitted(torch.nn.ReLU(), "b")
        tanh, three = fitted(torch.nn.Tanh(), "a")  # what can be told of it counts as well
        assert (one, two, three) == (1, 2, 3)
        np.testing.assert_array_equal(relu, again)
        assert not np.array_equal(relu, tanh)

    def test_models_of_timm_need_no_name(self, good, tmp_path):
        make_detector(memory=FeatureStore(tmp_path, network="a")).fit(good)
        make_detector(memory=tmp_path).fit(good)
        assert len(files(FeatureStore(tmp_path))) == len(good)


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
