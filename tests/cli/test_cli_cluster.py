"""`skad predict` on a cluster of dask: the rows of a run without, whatever workers do."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from command_line import plant, run, scheduler_here

from skad import PatchCoreDetector
from skad.cli import _cluster, _portions, _workers
from skad.cli._messages import CommandError

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
ROOT = Path(__file__).parents[2]
NEW = [f"parts/new/{i:02}.png" for i in range(4)]
TABLES = ("--csv", "v.csv", "--jsonl", "r.jsonl")


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler with one worker, both in this process."""
    with scheduler_here(2) as address:
        yield address


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    plant(tmp_path, monkeypatch)
    _workers._loaded.clear()
    monkeypatch.setattr(_portions, "PORTION", 2)
    return tmp_path


def contents(*paths):
    return {path: Path(path).read_bytes() for path in paths}


def pictures(folder):
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("more", [(), ("--jsonl", "r.jsonl"), ("--heatmaps", "out")])
def test_files_are_those_of_a_run_without(more, scheduler, capsys):
    Path(NEW[1]).write_bytes(Path(NEW[1]).read_bytes()[:400])  # damaged
    command = ("predict", "line3.skad", "parts/new", "gone.png", "--csv", "v.csv", *more)
    alone = run(capsys, *command)
    files = [name for name in ("v.csv", "r.jsonl") if os.path.exists(name)]
    wanted, drawn = contents(*files), pictures("out") if "out" in more else None
    together = run(capsys, *command, "--cluster", scheduler)
    assert (together.code, together.err) == (alone.code, alone.err) == (1, alone.err)
    assert contents(*files) == wanted
    if drawn is not None:
        assert pictures("out") == drawn
        assert len(drawn) == 3


def test_the_table_is_printed_and_codes_are_the_same(scheduler, capsys):
    for named, code in ((NEW[:2], 0), (NEW, 3)):
        alone = run(capsys, "predict", "line3.skad", *named)
        together = run(capsys, "predict", "line3.skad", *named, "--cluster", scheduler)
        assert alone.code == code
        assert vars(together) == vars(alone)
    assert sorted(os.listdir()) == ["line3.skad", "parts"]


def test_the_detector_is_loaded_once(scheduler, capsys, monkeypatch):
    loaded, load = [], _workers.load_model
    monkeypatch.setattr(_workers, "load_model", lambda path: loaded.append(path) or load(path))
    assert run(capsys, "predict", "line3.skad", *NEW, "--cluster", scheduler).code == 3
    assert loaded == [os.path.abspath("line3.skad")]


def test_only_a_window_of_portions_is_out(scheduler, capsys, monkeypatch):
    monkeypatch.setattr(_portions, "PORTION", 1)
    monkeypatch.setattr(_cluster, "_AHEAD", 1)
    out, most = set(), []
    submit = distributed.Client.submit

    def counted(self, *args, **kwargs):
        future = submit(self, *args, **kwargs)
        out.add(future.key)
        most.append(len(out))
        return future

    result = distributed.Future.result

    def taken(self, *args, **kwargs):
        out.discard(self.key)
        return result(self, *args, **kwargs)

    monkeypatch.setattr(distributed.Client, "submit", counted)
    monkeypatch.setattr(distributed.Future, "result", taken)
    assert run(capsys, "predict", "line3.skad", *NEW, "--cluster", scheduler).code == 3
    assert (len(most), max(most)) == (4, 2)  # two threads


def test_a_file_that_is_another_on_a_worker_is_no_verdict(scheduler, capsys, monkeypatch):
    monkeypatch.setattr(
        _workers.ModelFile, "of", classmethod(lambda cls, path: cls(os.path.abspath(path), "0"))
    )
    result = run(capsys, "predict", "line3.skad", *NEW, "--cluster", scheduler, "--csv", "v.csv")
    assert (result.code, len(result.lines)) == (1, 1)
    assert "line3.skad' is another file than on this machine" in result.err
    assert not os.path.exists("v.csv")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_workers.ModelFile("nowhere.skad", "0"), "'nowhere.skad': No such file or directory."),
        (_workers.ModelFile("line3.skad", "0", "0.0.9"), "this is 0.0.9: install the same on both"),
    ],
)
def test_what_a_worker_lacks(model, message):
    with pytest.raises(CommandError, match=message):
        _workers.check_model(model)


def test_a_threshold_that_was_moved_beside_the_file_makes_another(workshop):
    Path("line3.onnx").write_bytes(b"1")
    before = _workers.content_of("line3.onnx")
    Path("line3.onnx.calibration.json").write_text("{}")
    assert _workers.content_of("line3.onnx") != before


def test_what_a_worker_cannot_load_ends_the_run(scheduler, capsys, monkeypatch):
    def broken(self):
        raise ValueError("the weights are gone")

    monkeypatch.setattr(PatchCoreDetector, "_find_network", broken)
    result = run(capsys, "predict", "line3.skad", *NEW, "--cluster", scheduler)
    assert result.code == 1
    assert "the worker inproc" in result.err
    assert result.err.endswith("the weights are gone\n")


def test_an_image_that_goes_before_it_is_drawn(scheduler, capsys, monkeypatch):
    write = _workers.Pictures.write

    def gone(self, found):
        if found.path.endswith("01.png"):
            os.remove(found.path)
        write(self, found)

    monkeypatch.setattr(_workers.Pictures, "write", gone)
    command = ("predict", "line3.skad", "parts/new", *TABLES, "--heatmaps", "out")
    result = run(capsys, *command, "--cluster", scheduler)
    assert result.code == 1
    assert result.lines[0] == f"skad: no picture: {NEW[1]!r}: no such file."
    assert len(Path("v.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("deadly", [NEW[1], None])
def test_an_image_that_kills_workers_is_found(deadly, scheduler, capsys, monkeypatch):
    """Workers in this process cannot die; what their scheduler then says is put in their place."""
    result_of = _cluster.Cluster._result
    portions = []

    def dies(self, future):
        found = result_of(self, future)
        paths = [os.path.relpath(one.path) for one in found]
        portions.append(paths)
        return _cluster.Died() if deadly in paths else found

    monkeypatch.setattr(_cluster.Cluster, "_result", dies)
    result = run(capsys, "predict", "line3.skad", *NEW, "--cluster", scheduler, "--csv", "v.csv")
    rows = Path("v.csv").read_text().splitlines()[1:]
    if deadly is None:
        assert (result.code, portions) == (3, [NEW[:2], NEW[2:]])
    else:
        assert (result.code, portions) == (1, [NEW[:2], NEW[:1], NEW[1:2], NEW[2:]])
        assert result.lines[0].startswith(f"skad: not scored: {deadly!r}: every worker that had it")
    assert [row.split(",")[0] for row in rows] == [path for path in NEW if path != deadly]


def test_nobody_there(capsys, monkeypatch):
    monkeypatch.setattr(_cluster, "_CONNECT_SECONDS", 0.2)
    address = "tcp://127.0.0.1:9"
    result = run(capsys, "predict", "line3.skad", *NEW, "--cluster", address)
    assert (result.code, result.err) == (1, f"skad: no scheduler of dask answers at {address!r}.\n")


def test_without_dask(capsys, monkeypatch):
    monkeypatch.setitem(os.sys.modules, "distributed", None)
    result = run(capsys, "predict", "line3.skad", *NEW, "--cluster", "tcp://127.0.0.1:9")
    assert result.code == 1
    assert 'pip install "skad[dask]"' in result.err


# ---- going on -------------------------------------------------------------------------------------


@contextmanager
def ended_after(n, monkeypatch):
    """Let a signal arrive while the row after the nth is written, and a kill cut off what follows."""
    from skad.cli._outputs import Jsonl

    write, seen = Jsonl.write, []

    def stopped(self, found):
        seen.append(found)
        if len(seen) == n + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        write(self, found)

    with monkeypatch.context() as patch:
        patch.setattr(Jsonl, "write", stopped)
        yield


@pytest.mark.parametrize("on_cluster", [False, True])
def test_goes_on_after_a_signal(on_cluster, scheduler, capsys, monkeypatch):
    Path(NEW[0]).write_bytes(b"no image")
    command = ["predict", "line3.skad", "parts/new", *TABLES]
    wanted = run(capsys, *command)
    files = contents("v.csv", "r.jsonl")
    for name in files:
        os.remove(name)
    command += ["--resume", *(["--cluster", scheduler] if on_cluster else [])]
    with ended_after(1, monkeypatch):
        result = run(capsys, *command)
    assert result.code == 1
    assert result.lines[-1] == "skad: stopped by SIGTERM: what is written so far is whole."
    assert Path("r.jsonl").read_bytes().count(b"\n") == 2
    result = run(capsys, *command)
    assert contents("v.csv", "r.jsonl") == files
    # What was said then is said again, and counts.
    assert result.lines[0].endswith("of 4 images are done already")
    assert (result.code, result.lines[1:]) == (wanted.code, wanted.lines)
    # All is done: the same answer, without work.
    monkeypatch.setattr("skad.cli._predict.score_images", lambda *_, **__: iter([]))
    again = run(capsys, *command)
    assert (again.code, again.lines[1:]) == (wanted.code, wanted.lines)
    assert contents("v.csv", "r.jsonl") == files


@pytest.mark.slow
def test_clients_and_workers_are_killed(capsys, workshop):
    """Real processes: SIGKILL of the client, of a worker, then SIGTERM, and what is left at the end."""
    for i in range(1200):
        os.link(NEW[i % 4], f"parts/{i:04}.png")
    command = ["predict", "line3.skad", "parts", "--csv", "v.csv"]
    assert run(capsys, *command).code == 3
    wanted = Path("v.csv").read_bytes()
    os.remove("v.csv")

    def rows():
        return Path("v.csv").read_bytes().count(b"\n") if os.path.exists("v.csv") else 0

    def begun(n, address):
        process = subprocess.Popen(
            [sys.executable, "-m", "skad", *command, "--resume", "--cluster", address],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        before, end = rows(), time.monotonic() + 600
        while rows() < before + n and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.002)
        return process

    started = []
    with (
        ExitStack() as stack,
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        stack.callback(lambda: [process.kill() for process in started])
        address = cluster.scheduler_address
        first = begun(100, address)
        first.kill()
        first.communicate(timeout=60)
        assert (first.returncode, rows() < 1201) == (-signal.SIGKILL, True)
        second = begun(200, address)
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        time.sleep(0.2)
        second.terminate()
        _, err = second.communicate(timeout=60)
        assert (second.returncode, rows() < 1201) == (1, True)
        assert err.splitlines()[-1].startswith("skad: stopped by SIGTERM")
        third = begun(2000, address)
        _, err = third.communicate(timeout=60)
    assert third.returncode == 3
    assert "of 1200 images are done already" in err
    assert Path("v.csv").read_bytes() == wanted


PRELOAD = """
import os
from skad.cli import _workers
from skad.cli._scores import Finding

def score(detector, paths, **_):
    for path in paths:
        if path.endswith("017.png"):
            os._exit(1)
        yield Finding(path, -1.0, 0.5, True)

_workers._detector = lambda model: None  # no torch: what is tested is who dies, and of what
_workers.score_images = score
"""


@pytest.mark.slow
def test_real_workers_die_of_an_image(workshop):
    Path("preload.py").write_text(PRELOAD)
    paths = [f"parts/{i:03}.png" for i in range(100)]
    Path("list.csv").write_text("\n".join(["path", *paths]))
    # One death is enough to be sure of: dask's nannies do not always bring back who has died often.
    once = dask.config.set({"distributed.scheduler.allowed-failures": 0})
    settings = {"threads_per_worker": 1, "dashboard_address": ":0"}
    preload = [str(workshop / "preload.py")]
    with once, distributed.LocalCluster(2, preload=preload, **settings) as cluster:
        command = ["predict", "line3.skad", "list.csv", "--csv", "v.csv"]
        result = subprocess.run(
            [sys.executable, "-m", "skad", *command, "--cluster", cluster.scheduler_address],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.startswith("skad: not scored: 'parts/017.png': every worker that had it")
    rows = Path("v.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [path for path in paths if "017" not in path]
