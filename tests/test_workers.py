"""Searches in several processes: the sequential result, no process that waits for ever."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_detector, make_reconpatch, make_recontrast
from joblib import parallel_config
from scripts import assert_alive
from sklearn.model_selection import GridSearchCV

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
    grid = {"n_neighbors": [1, 3], "b": [None, 2]}
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


def test_a_cluster_of_dask_gives_the_sequential_result(data):
    distributed = pytest.importorskip("distributed")
    grid = {"k": [3, 5], "alpha": [0.25, 0.75], "m": [0.5, 1.0]}
    detector = make_reconpatch(epochs=1)
    alone = search(detector, grid, data)
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_children_forked_after_work_do_not_hang():
    """In a process of its own, since a child that hangs would have to be killed."""
    code = f"""
    import sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    import numpy as np, torch
    from conftest import make_detector
    from joblib import Parallel, delayed
    torch.set_num_threads(2)
    good = np.random.default_rng(0).integers(90, 130, (8, 40, 48, 3)).astype(np.uint8)
    det = make_detector(index="Flat").fit(good)
    expected = det.score_samples(good)
    def score(images):
        return det.score_samples(images), torch.get_num_threads()
    found = Parallel(n_jobs=2, backend="multiprocessing")(delayed(score)(good[i:]) for i in range(3))
    for i, (scores, n_threads) in enumerate(found):
        np.testing.assert_array_equal(scores, expected[i:])
        assert n_threads == 1
    assert torch.get_num_threads() == 2
    print("alive")
    """
    assert_alive(code)


def forked_while(work, child, times=4, setup=""):
    """Fork while a thread works, sooner and later; every child must answer. In a process of its own."""
    code = f"""
import os, signal, sys, threading, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from conftest import make_detector
good = np.random.default_rng(0).integers(90, 130, (6, 40, 48, 3)).astype(np.uint8)
{setup}
def work(i):
    {work}
for i in range({times}):
    thread = threading.Thread(target=work, args=(i,))
    thread.start()
    time.sleep(0.03 * i)
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        {child}
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, i
    thread.join()
print("alive")
"""
    assert_alive(code)


LOADER = "import torch\nfrom skad._features import load_backbone"
LOAD = (
    "load_backbone(['resnet18', 'resnet10t', 'resnet14t', 'resnet26'][i], None, (i % 3,), "
    "torch.device('cpu'))"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
class TestForksWhileAThreadWorks:
    def test_it_loads_the_first_backbone(self):
        """The first child is forked while timm is imported, the others while networks are built."""
        forked_while(LOAD, "make_detector().fit(good)", setup=LOADER)

    def test_it_loads_another_one_or_makes_what_the_detector_shares(self):
        """A backbone; then the index, neighbourhoods and copies of the bank; last, its lock is held."""
        work = f"""
    if i < 2:
        {LOAD}
    elif i < 4:
        copy.deepcopy(det).score_samples(good)
    else:
        with det.bank_._lock:
            time.sleep(0.5)
"""
        setup = f"import copy\n{LOADER}\ndet = make_detector(b=2, index='Flat').fit(good)"
        forked_while(work, "det.score_samples(good)", times=6, setup=setup)
