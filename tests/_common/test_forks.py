"""Forks while other threads import: every import that a call may be the first to need waits for none."""

import ast
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from scripts import assert_alive, run_code

import skad

SOURCES = sorted(Path(skad.__file__).parent.rglob("*.py"))


def imports_without_the_lock(tree, guarded=True):
    """Imports of other packages inside functions, outside of `with LOADING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            tops = {str(name).split(".")[0] for name in named}
            if not guarded and tops - sys.stdlib_module_names - {"skad"}:
                yield node.lineno
        inside = guarded
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inside = False
        elif isinstance(node, ast.With):
            inside = inside or "LOADING" in [ast.unparse(item.context_expr) for item in node.items]
        yield from imports_without_the_lock(node, inside)


def test_the_scan_sees_imports_in_functions():
    code = """
import torch
def f():
    import os
    with LOADING:
        import timm
    with other:
        import faiss
    def g():
        from matplotlib.figure import Figure
"""
    assert list(imports_without_the_lock(ast.parse(code))) == [8, 10]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_imports_inside_functions_hold_the_lock(source):
    assert not list(imports_without_the_lock(ast.parse(source.read_text(encoding="utf-8"))))


# One process for all situations: to import torch in each would take most of the time.
SITUATIONS = """
import contextlib, copy, os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
import numpy as np
import torch
import skad, skad.inspection
from conftest import make_detector
from joblib import Parallel, delayed
from skad._features import load_backbone
from skad._common.forks import _object_locks

good = np.random.default_rng(0).integers(90, 130, (6, 40, 48, 3)).astype(np.uint8)

failed = []
threading.excepthook = failed.append

def fork_during(work, child, delays):
    # A child that hangs is ended by the alarm.
    for i, delay in enumerate(delays):
        thread = threading.Thread(target=work, args=(i,), daemon=True)
        thread.start()
        time.sleep(delay)
        pid = os.fork()
        if not pid:
            signal.alarm(60)
            child(i)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, (work.__name__, i)
        thread.join()
        assert not failed, failed
    print(work.__name__)

def load(i, layers=(1,)):
    names = ["resnet10t", "resnet14t"]
    load_backbone(names[i], None, layers, torch.device("cpu"))

# The first child is forked while timm is imported, the other while a network is built.
fork_during(load, lambda i: make_detector().fit(good), [0, 0.05])

det = make_detector(b=2, image_score="patch", index="Flat").fit(good)
expected = det.score_samples(good)

def save(i, name="parent"):
    skad.save(det, {folder!r} + name + ".skad")

def report(i, name="parent"):
    skad.inspection.report(det, good[:2], path={folder!r} + name + ".html")

fork_during(save, lambda i: save(i, "child"), [0.003])
if {matplotlib}:
    fork_during(report, lambda i: report(i, "child"), [0.003])

def load_another(i):
    load(i, (0, 1))

def share(i):
    # The index, neighbourhoods and copies of the bank.
    copy.deepcopy(det).score_samples(good)

def lock(i):
    with contextlib.ExitStack() as held:
        for lock in list(_object_locks):
            held.enter_context(lock)
        time.sleep(0.5)

def score(i):
    np.testing.assert_array_equal(det.score_samples(good), expected)

fork_during(load_another, score, [0, 0.03])
fork_during(share, score, [0.06])
fork_during(lock, score, [0.03])

def score_in_child(images):
    return det.score_samples(images), torch.get_num_threads()

torch.set_num_threads(2)
# Pools of torch and faiss have worked in the parent.
det.score_samples(good)
found = Parallel(n_jobs=2, backend="multiprocessing")(
    delayed(score_in_child)(good[i:]) for i in range(3)
)
for i, (scores, n_threads) in enumerate(found):
    np.testing.assert_array_equal(scores, expected[i:])
    assert n_threads == 1
assert torch.get_num_threads() == 2
print("alive")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_children_of_a_fork_do_not_hang(tmp_path):
    """While a thread works in the parent, sooner and later; after it; at first uses of libraries."""
    matplotlib = importlib.util.find_spec("matplotlib") is not None
    code = SITUATIONS.format(
        tests=str(Path(__file__).parents[1]),
        folder=str(tmp_path) + os.sep,
        matplotlib=matplotlib,
    )
    done = run_code(code)
    reports = ["report"] if matplotlib else []
    situations = ["load", "save", *reports, "load_another", "share", "lock", "alive"]
    assert done.stdout.split() == situations, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize(
    "need", ["logging.getLogger('a new one')", "ThreadPoolExecutor(1).submit(int).result()"]
)
def test_who_loads_may_need_locks_that_other_libraries_take_at_a_fork(need):
    code = f"""
import os, signal, threading, time
from skad._common.forks import LOADING
import logging
from concurrent.futures import ThreadPoolExecutor
started = threading.Event()
def work():
    with LOADING:
        started.set()
        time.sleep(0.2)
        {need}
threading.Thread(target=work, daemon=True).start()
started.wait()
signal.alarm(30)
pid = os.fork()
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
print("alive")
"""
    assert_alive(code)
