"""Forks while other threads import: every import that a call may be the first to need waits for none."""

import ast
import os
import sys
from pathlib import Path

import pytest
from scripts import assert_alive

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


WORK = {
    "save": "skad.save(det, folder + name + '.skad')",
    "report": "skad.inspection.report(det, good[:2], path=folder + name + '.html')",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("work", WORK)
def test_a_child_forked_during_the_first_use_does_the_same(work, tmp_path):
    if work != "save":
        pytest.importorskip("matplotlib")
    code = f"""
import os, signal, sys, threading, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import numpy as np
import skad, skad.inspection
from conftest import make_detector
good = np.random.default_rng(0).integers(90, 130, (6, 40, 48, 3)).astype(np.uint8)
folder = {str(tmp_path) + os.sep!r}
det = make_detector().fit(good)
def work(name):
    {WORK[work]}
thread = threading.Thread(target=work, args=("parent",), daemon=True)
thread.start()
time.sleep(0.003)
pid = os.fork()
if not pid:
    signal.alarm(60)
    work("child")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
thread.join()
print("alive")
"""
    assert_alive(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize(
    "need", ["logging.getLogger('a new one')", "ThreadPoolExecutor(1).submit(int).result()"]
)
def test_who_loads_may_need_locks_that_other_libraries_take_at_a_fork(need):
    code = f"""
import os, signal, threading, time
from skad._system.forks import LOADING
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
