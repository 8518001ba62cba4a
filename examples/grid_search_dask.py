"""
====================================
Search settings on a cluster of dask
====================================

Search the settings of a detector on a cluster of dask.

Without arguments a cluster of two workers is started on this machine; ``--scheduler`` names one that
runs elsewhere. The search is scikit-learn's own: joblib sends its fits to the workers. Images travel
as paths or arrays; features are kept in a folder that all workers share (``--memory``), so that the
backbone sees each image once in the whole cluster.

Run ``python examples/grid_search_dask.py [PATH] [--scheduler tcp://host:8786] [--memory FOLDER]``;
PATH is a folder in MVTec layout that all workers see under that name, else tiles of a photograph are
used.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from distributed import Client, LocalCluster
from grid_search_reconpatch import part, tiles_of_grass
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV

from skad import PatchCoreDetector
from skad.model_selection import OneClassKFold, discriminability_scorer

GRID = {"coreset_size": [0.01, "auto"], "n_neighbors": [1, 3], "image_score": ["map", "patch"]}


def start_workers(number: int) -> LocalCluster:
    """Start workers on this machine, each a process that works in one thread."""
    return LocalCluster(n_workers=number, threads_per_worker=1, dashboard_address=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument("folder", nargs="?", type=Path, help="folder in MVTec layout")
    parser.add_argument("--scheduler", help="address of a running scheduler, tcp://host:port")
    parser.add_argument("--workers", type=int, default=2, help="without --scheduler")
    parser.add_argument("--memory", help="folder for features, seen by all workers")
    parser.add_argument("--image-size", type=int, default=128)
    args = parser.parse_args()
    if args.scheduler and not args.memory:
        parser.error("--scheduler needs --memory: a folder that all workers see")
    X, y = tiles_of_grass() if args.folder is None else part(args.folder)

    with ExitStack() as stack:
        memory = args.memory or stack.enter_context(tempfile.TemporaryDirectory())
        # The client closes before the cluster that it talks to.
        address = args.scheduler or stack.enter_context(start_workers(args.workers))
        client = stack.enter_context(Client(address))
        n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
        detector = PatchCoreDetector(
            "skad_nano", image_size=args.image_size, memory=memory, random_state=0
        )
        search = GridSearchCV(
            detector,
            GRID,
            scoring=discriminability_scorer,
            cv=OneClassKFold(3, shuffle=True, random_state=0),
        )
        start = time.perf_counter()
        with parallel_config(backend="dask"):
            search.fit(X, y)
        seconds = time.perf_counter() - start
    n = len(search.cv_results_["params"])
    print(f"{n} candidates x 3 folds on {n_workers} workers, {len(X)} images: {seconds:.0f} s")
    print(f"best: {search.best_params_}, d' {search.best_score_:.2f}")


if __name__ == "__main__":
    main()
