"""Searches in several processes give the sequential result, and share what they compute."""

import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_detector, make_reconpatch, make_recontrast
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from skad import ReConPatchDetector
from skad._features import FeatureNet
from skad.model_selection import OneClassKFold


@pytest.fixture(scope="module")
def data(good, defective):
    return np.concatenate([good, defective]), np.repeat([1, -1], [len(good), len(defective)])


def search(detector, grid, data, **kwargs):
    # NaN equals NaN where fits fail, in one process and in two.
    search = GridSearchCV(detector, grid, cv=OneClassKFold(2), error_score="raise", **kwargs)
    return search.fit(*data)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_two_workers_give_the_sequential_result(data, backend):
    grid = {"n_neighbors": [1, 3], "image_score": ["map", "patch"]}
    alone = search(make_detector(), grid, data)
    with parallel_config(backend=backend, n_jobs=2):
        together = search(make_detector(), grid, data)
    np.testing.assert_array_equal(
        together.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(
        together.best_estimator_.score_samples(data[0]),
        alone.best_estimator_.score_samples(data[0]),
    )


class Logging(ReConPatchDetector):
    """Writes a byte to a file of this process for every image that the backbone sees.

    The files lie beside the store: a process that was there before the test knows no more of it
    than the detector tells.
    """

    def _fit_images(self, *args, **kwargs):
        with self.logged():
            return super()._fit_images(*args, **kwargs)

    def _score_batches(self, *args, **kwargs):
        with self.logged():
            yield from super()._score_batches(*args, **kwargs)

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


def test_two_workers_share_a_store(tmp_path, good, defective):
    (tmp_path / "log").mkdir()
    X = np.concatenate([good, 255 - good, defective])
    y = np.repeat([1, -1], [2 * len(good), len(defective)])
    params = make_reconpatch(memory=tmp_path / "store", epochs=1, n_jobs=1, batch_size=1)
    # A fit that fails would extract nothing and pass unseen.
    search = GridSearchCV(
        Logging(**params.get_params()),
        {"k": [3, 5], "alpha": [0.25, 0.75]},
        cv=StratifiedKFold(3),
        n_jobs=2,
        error_score="raise",
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    logged = list((tmp_path / "log").iterdir())
    assert {file.name for file in logged} - {str(os.getpid())}
    extracted = sum(len(file.read_bytes()) for file in logged)
    # Each process looks at a black image first: two workers, and this one for the refit.
    assert len(X) <= extracted <= 1.3 * len(X) + 3


def test_a_cluster_of_dask_gives_the_sequential_result(data):
    distributed = pytest.importorskip("distributed")
    grid = {"k": [3, 5], "m": [0.5, 1.0]}
    detector = make_reconpatch(epochs=1)
    alone = search(detector, grid, data)
    # The start of a worker takes longer than all of the fits.
    settings = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**settings) as cluster, distributed.Client(cluster) as client:
        assert set(client.run(torch.get_num_threads).values()) == {1}
        with parallel_config(backend="dask"):
            together = search(detector, grid, data)
    np.testing.assert_array_equal(
        together.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )
    assert together.best_params_ == alone.best_params_
    np.testing.assert_array_equal(
        together.best_estimator_.score_samples(data[0]),
        alone.best_estimator_.score_samples(data[0]),
    )


def test_networks_train_in_workers(data):
    # Two images are left to calibrate with.
    det = make_recontrast(max_iter=3, train_precision="float32", target_false_alarm_rate=0.4)
    alone = search(det, {"bn": ["train", "eval"]}, data)
    together = search(det, {"bn": ["train", "eval"]}, data, n_jobs=2)
    assert together.best_params_ == alone.best_params_
    np.testing.assert_array_equal(
        together.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )
