"""Splitters that never train on a defective image."""

import numpy as np
import pandas as pd
import pytest
from conftest import make_detector
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skad import DefectClassifier
from skad.model_selection import OneClassKFold, OneClassShuffleSplit, unwrap

Y = np.array([1, -1, 1, 1, -1, 1, 1, 1, -1, 1, 1, 1])


def cut(images):
    return images[:, 2:-2]


class TestKFold:
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_every_image_is_tested_once_and_only_good_ones_trained_on(self, shuffle):
        folds = list(OneClassKFold(3, shuffle=shuffle, random_state=0).split(Y, Y))
        assert len(folds) == OneClassKFold(3).get_n_splits() == 3
        np.testing.assert_array_equal(np.sort(np.concatenate([t for _, t in folds])), range(12))
        for train, test in folds:
            assert (Y[train] == 1).all()
            assert not set(train) & set(test)
            assert (Y[test] == 1).sum() == 3
            assert (Y[test] == -1).sum() == 1
            assert len(train) == 6
            assert (np.diff(train) > 0).all()
            assert (np.diff(test) > 0).all()

    def test_runs_of_neighbours_without_shuffling(self):
        first, *_ = OneClassKFold(3).split(Y, Y)
        np.testing.assert_array_equal(first[1], [0, 1, 2, 3])

    def test_shuffling_is_seeded(self):
        tests = [
            [
                test.tolist()
                for _, test in OneClassKFold(3, shuffle=True, random_state=s).split(Y, Y)
            ]
            for s in (0, 0, 1)
        ]
        assert tests[0] == tests[1] != tests[2]

    def test_without_defective_images(self):
        for train, test in OneClassKFold(2).split(np.ones(6), np.ones(6)):
            assert len(train) == len(test) == 3

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            ([1, 1, 1, -1], "at least 2 defective images; y has 1"),
            ([1, -1, -1, -1], "at least 2 good images; y has 1"),
            ([0, 1, 0, 1], r"y holds \[0, 1\].*np.where"),
        ],
    )
    def test_labels_that_do_not_do(self, y, message):
        with pytest.raises(ValueError, match=message):
            list(OneClassKFold(2).split(y, y))

    def test_no_labels(self):
        with pytest.raises(ValueError, match="y is needed"):
            list(OneClassKFold(2).split(Y, None))

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_no_group_is_on_both_sides(self, shuffle):
        y = np.r_[np.ones(20), -np.ones(10)]
        groups = np.array(list("abcdefghij") * 3)  # good and defective images of ten parts
        folds = list(OneClassKFold(3, shuffle=shuffle, random_state=0).split(y, y, groups))
        assert len(folds) == 3
        np.testing.assert_array_equal(np.sort(np.concatenate([t for _, t in folds])), range(30))
        for train, test in folds:
            assert not set(groups[train]) & set(groups[test])
            assert (y[train] == 1).all()
            assert set(y[test]) == {1, -1}

    @pytest.mark.parametrize(
        "hold",
        [
            lambda g: g[:, None],
            lambda g: pd.Series(g, index=range(len(g))[::-1]),
            lambda g: pd.Series(g, dtype="category"),
            lambda g: [None if name == "b" else name for name in g],
            lambda g: [(name, 1) for name in g],
        ],
        ids=["column", "Series", "categorical", "None", "tuples"],
    )
    def test_groups_in_every_container(self, hold):
        y, groups = np.r_[np.ones(20), -np.ones(10)], np.array(list("abcdefghij") * 3)
        expected = list(OneClassKFold(3).split(y, y, groups))
        for fold, other in zip(OneClassKFold(3).split(y, y, hold(groups)), expected, strict=True):
            for a, b in zip(fold, other, strict=True):
                np.testing.assert_array_equal(a, b)

    def test_groups_in_a_cross_validation(self, good, defective):
        X, y = np.concatenate([good, defective]), np.r_[np.ones(12), -np.ones(4)]
        groups = np.arange(16) % 4
        scores = cross_val_score(make_detector(), X, y, groups=groups, cv=OneClassKFold(2))
        assert scores.min() == 1.0

    @pytest.mark.parametrize(
        ("groups", "message"),
        [
            ([0, 0, 0, 0, 0, 1], "fold 0 .* no good image among the images to"),
            ([0, 1, 2], "inconsistent numbers of samples"),
            (np.zeros((6, 2)), "one name or number per image"),
        ],
    )
    def test_groups_that_do_not_do(self, groups, message):
        y = np.array([1, 1, 1, 1, -1, -1])
        with pytest.raises(ValueError, match=message):
            list(OneClassKFold(2).split(y, y, groups))

    @pytest.mark.parametrize("n_splits", [1, 2.5, "3"])
    def test_numbers_of_folds(self, n_splits):
        with pytest.raises(ValueError, match="n_splits"):
            OneClassKFold(n_splits)

    def test_in_a_search(self, good, defective):
        X = [*good, *defective]
        y = np.repeat([1, -1], [len(good), len(defective)])
        search = GridSearchCV(make_detector(), {"n_neighbors": [1, 3]}, cv=OneClassKFold(2))
        assert search.fit(X, y).best_score_ == 1.0


class TestShuffleSplit:
    def test_all_defective_images_are_tested(self):
        splits = list(OneClassShuffleSplit(4, test_size=0.3, random_state=0).split(Y, Y))
        assert len(splits) == 4
        for train, test in splits:
            assert (Y[train] == 1).all()
            assert (Y[test] == -1).sum() == 3
            assert (Y[test] == 1).sum() == 3  # round(0.3 x 9)
            assert len(train) == 6
            assert not set(train) & set(test)
        assert len({tuple(test) for _, test in splits}) > 1

    def test_few_shots(self):
        for train, _ in OneClassShuffleSplit(3, train_size=1, random_state=0).split(Y, Y):
            assert len(train) == 1

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"test_size": 9}, "do not fit into 9 good images"),
            ({"test_size": 5, "train_size": 5}, "do not fit"),
            ({"test_size": 1.5}, "test_size"),
            ({"train_size": 0}, "train_size"),
            ({"test_size": "half"}, "test_size"),
        ],
        ids=str,
    )
    def test_sizes_that_do_not_do(self, params, message):
        with pytest.raises(ValueError, match=message):
            list(OneClassShuffleSplit(2, **params).split(Y, Y))

    def test_repr(self):
        assert "n_splits=3" in repr(OneClassShuffleSplit(3))


def test_groups_reach_the_splitter_where_metadata_are_routed(good, defective):
    X, y = np.concatenate([good, defective]), np.r_[np.ones(12), -np.ones(4)]
    seen, groups = [], np.arange(16) % 4

    class Watching(OneClassKFold):
        def split(self, X, y, groups=None):
            seen.append(groups)
            return super().split(X, y, groups)

    with config_context(enable_metadata_routing=True):
        GridSearchCV(make_detector(), {"n_neighbors": [1]}, cv=Watching(2)).fit(X, y, groups=groups)
    assert all(given is not None and (given == groups).all() for given in seen)
    assert seen


@pytest.fixture(scope="module")
def search(good, defective):
    X, y = np.concatenate([good, defective]), np.r_[np.ones(12), -np.ones(4)]
    pipeline = make_pipeline(FunctionTransformer(cut), FunctionTransformer(), make_detector())
    grid = {"patchcoredetector__n_neighbors": [1]}
    return GridSearchCV(pipeline, grid, cv=OneClassKFold(2)).fit(X, y)


class TestUnwrap:
    def test_what_the_detector_sees(self, search, defective):
        found = unwrap(search)
        np.testing.assert_array_equal(found.images(defective), cut(defective))
        np.testing.assert_array_equal(
            found.detector.score_samples(found.images(defective)), search.score_samples(defective)
        )

    def test_its_threshold_is_that_of_the_whole(self, search, good):
        before = search.decision_function(good)
        found = unwrap(search)
        found.detector.calibrate(target_false_alarm_rate=0.5)
        assert (search.decision_function(good) < before).all()

    def test_in_pipelines_of_pipelines(self, good):
        inner = make_pipeline(FunctionTransformer(cut), make_detector())
        outer = make_pipeline(FunctionTransformer(cut), inner).fit(good)
        assert unwrap(outer).images(good).shape == good[:, 4:-4].shape

    @pytest.mark.parametrize("fit", [False, True])
    def test_what_holds_no_detector(self, good, fit):
        model = make_pipeline(FunctionTransformer(), StandardScaler())
        if fit:
            model.fit(good.reshape(len(good), -1))
        with pytest.raises(TypeError, match="StandardScaler has no method 'score_samples'"):
            unwrap(model)

    @pytest.mark.parametrize(
        "model",
        [
            make_detector(),
            make_pipeline(make_detector()),
            GridSearchCV(make_detector(), {}),
            DefectClassifier(make_detector(), defect_label=-1),
        ],
        ids=lambda model: type(model).__name__,
    )
    def test_what_is_not_fitted(self, model):
        with pytest.raises(NotFittedError):
            unwrap(model)


def test_groups_are_not_ignored_in_silence():
    splitter = OneClassShuffleSplit(2, test_size=2, random_state=0)
    with pytest.warns(UserWarning, match="OneClassShuffleSplit ignores groups") as seen:
        list(splitter.split(Y, Y, np.arange(12)))
    assert seen[0].filename == __file__
