"""Time PatchCore against anomalib's: same images, weights and settings, phase by phase.

anomalib is installed from PyPI into a virtual environment of its own (``--venv``). The two take
turns, each run in a process of its own; medians and the median of the ratios are printed. Seconds are
seconds of CPU time, which other programs disturb least; with one thread a clock shows the same.

anomalib is called by its network directly, which spares it the trainer around it. Both re-weight
image scores by nine neighbours. anomalib makes a map with every score; skad is timed with and without.
skad's fit includes the threshold (every good image is scored without its own patches), anomalib's has
none. In the end skad scores with the bank that anomalib has chosen: the scores must agree.

Both are exported to ONNX as well, anomalib's network by the call that its own export makes, and their
files are timed in ONNX Runtime, score and map; "deviation" is how far a file's scores are from those of
the model that it was made of. anomalib's is also converted to OpenVINO as its own export does it, and
timed by its inferencer for OpenVINO; beside that stands skad's file in ONNX Runtime once more.

    python benchmarks/against_anomalib.py
    python benchmarks/against_anomalib.py --weights resnet18.safetensors --images parts/train/good
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = 224
BATCH = 8
LAYERS = (2, 3)
NEIGHBOURS = 9
# OpenVINO computes in bfloat16 by default where the processor can: timed that way, and in float32.
PRECISIONS = {"its default": {}, "float32": {"INFERENCE_PRECISION_HINT": "f32"}}
IN_OPENVINO = "exported file, anomalib's in OpenVINO ({})"
# Repetitions of a call that is timed; their median is one run's figure.
CALLS = 7
# New images that are scored, behind those that are learned from.
SCORED = (CALLS + 1) * BATCH
HERE = Path(__file__).resolve()
REPOSITORY = HERE.parents[1]


def seconds(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def milliseconds_per_image(score: Callable[[Any], Any], images: Any, batch: int) -> float:
    """Median over some calls, after a first one that is not counted."""
    portions = [images[i * batch : (i + 1) * batch] for i in range(CALLS + 1)]
    times = [seconds(lambda portion=portion: score(portion)) for portion in portions]
    return 1000 / batch * statistics.median(times[1:])


def time_scoring(name: str, score: Callable[[Any], Any], images: Any) -> dict[str, float]:
    return {
        f"{name}, batch {n}, ms/image": milliseconds_per_image(score, images, n) for n in (1, BATCH)
    }


def of_file(
    score: Callable[[Any], Any], wanted: Any, images: Any, name: str = "exported file"
) -> dict[str, float]:
    """Time an exported file image by image, and compare its scores with those of its model."""
    import numpy as np

    found = np.concatenate([score(images[i : i + 1]) for i in range(len(wanted))])
    return {
        f"{name}, batch 1, ms/image": milliseconds_per_image(score, images, 1),
        f"{name}, deviation": float(np.max(np.abs(found / wanted - 1))),
    }


def peak_mb() -> float:
    """Peak memory of this program (Linux); getrusage would count what its parent held."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


# ---- in a process of its own ------------------------------------------------------------------------


def run_skad(job: dict) -> dict[str, float]:
    """Time skad; and score with the bank of anomalib, where one has been saved."""
    import numpy as np

    seconds_of_import = seconds(lambda: importlib.import_module("skad").PatchCoreDetector)
    from skad import PatchCoreDetector

    images, new = np.split(np.load(job["images"]), [job["number"]])
    detector = PatchCoreDetector(
        job["backbone"],
        weights=job["weights"],
        image_size=SIZE,
        layers=LAYERS,
        b=NEIGHBOURS,
        image_score="patch",
        whitening=0.0,
        coreset_size=job["ratio"],
        coreset_projection_dim=job["projection"],
        batch_size=BATCH,
        n_jobs=1,
        random_state=0,
    )
    detector.set_params(contamination=0.1).fit(images[:BATCH]).set_params(contamination="auto")
    embed = detector._find_network().embed

    def extract() -> None:
        for i in range(0, len(images), BATCH):
            embed(images[i : i + BATCH])

    extraction = seconds(extract)
    fit = seconds(lambda: detector.fit(images))

    def with_maps(portion: np.ndarray) -> Any:
        return detector.predict_heatmap(portion, return_scores=True)

    figures = {
        "import, s": seconds_of_import,
        "extraction, s": extraction,
        "fit, s": fit,
        **time_scoring("scores and maps", with_maps, new),
        **time_scoring("scores", detector.score_samples, new),
        "peak memory, MB": peak_mb(),
    }
    file = exported_skad(detector, new, Path(job["bank"]).with_name("skad.onnx"))
    figures |= of_file(*file, new)
    for name in PRECISIONS:
        figures |= of_file(*file, new, IN_OPENVINO.format(name))
    if Path(job["bank"]).exists():
        figures["deviation"] = compare_scores(detector, images[:BATCH], np.load(job["bank"]))
    return figures


def exported_skad(detector: Any, new: Any, file: Path) -> tuple[Callable[[Any], Any], Any]:
    """Return what scores by the exported file, and the scores that it should give."""
    import skad

    skad.export_onnx(detector, file, new[:4], tolerance=1e-4)
    line = skad.load(file, n_threads=1)
    return lambda portion: line.predict_heatmap(portion, True)[1], detector.score_samples(
        new[:BATCH]
    )


def compare_scores(detector: Any, images: Any, theirs: Any) -> float:
    """Return the largest relative deviation of image scores, with anomalib's bank."""
    import numpy as np

    from skad._bank import MemoryBank

    detector.bank_ = MemoryBank(theirs["bank"], np.zeros(len(theirs["bank"]), dtype=int))
    ours = -detector.score_samples(images)
    return float(np.max(np.abs(ours / theirs["scores"] - 1)))


def run_anomalib(job: dict) -> dict[str, float]:
    """Time anomalib; and save its bank with the scores of the first images."""
    import numpy as np
    import torch

    # Declares what a torchvision of another build lacks; does nothing where it lacks nothing.
    sys.path.insert(0, str(REPOSITORY))
    spec = importlib.util.spec_from_file_location(
        "shim", REPOSITORY / "skad" / "_features" / "_timm.py"
    )
    shim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    start = time.process_time()
    shim._import_torchvision()
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    seconds_of_import = time.process_time() - start
    images, new = np.split(np.load(job["images"]), [job["number"]])
    model = PatchcoreModel(
        [f"layer{layer}" for layer in LAYERS], job["backbone"], False, NEIGHBOURS
    )
    load_weights(model.feature_extractor.feature_extractor, job["weights"])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def forward(portion: np.ndarray) -> Any:
        pixels = torch.from_numpy(portion).permute(0, 3, 1, 2).float().div_(255)
        with torch.inference_mode():
            return model((pixels - mean) / std)

    def extract() -> None:
        for i in range(0, len(images), BATCH):
            forward(images[i : i + BATCH])

    model.train()
    model.feature_extractor.eval()
    extract()
    model.embedding_store.clear()
    extraction = seconds(extract)
    model.embedding_store.clear()

    def fit() -> None:
        extract()
        with torch.inference_mode():
            model.subsample_embedding(job["ratio"])

    fit_time = seconds(fit)
    model.eval()
    times = time_scoring("scores and maps", forward, new)
    figures = {
        "import, s": seconds_of_import,
        "extraction, s": extraction,
        "fit, s": fit_time,
        **times,
        **{name.replace(" and maps", ""): value for name, value in times.items()},
        "peak memory, MB": peak_mb(),
    }
    file, names = exported_anomalib(model, Path(job["bank"]).with_name("anomalib.onnx"))
    wanted = np.concatenate(
        [forward(new[i : i + 1]).pred_score.numpy().ravel() for i in range(BATCH)]
    )
    figures |= of_file(by_onnx_runtime(file, names), wanted, new)
    for name, precision in PRECISIONS.items():
        figures |= of_file(by_openvino(file, precision), wanted, new, IN_OPENVINO.format(name))
    scores = forward(images[:BATCH]).pred_score.numpy()
    np.savez(job["bank"], bank=model.memory_bank.numpy(), scores=scores)
    return figures


def exported_anomalib(model: Any, file: Path) -> tuple[Path, list[str]]:
    """Write a model that takes RGB in 0..1, as its own export does; return the names of its results."""
    import torch

    class Normalised(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
            self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

        def forward(self, pixels: torch.Tensor) -> Any:
            return self.model((pixels - self.mean) / self.std)

    model.memory_bank = model.memory_bank.clone()  # exporters take no tensors of inference mode
    network, example = Normalised().eval(), torch.zeros(1, 3, SIZE, SIZE)
    names = [name for name, value in network(example)._asdict().items() if value is not None]
    torch.onnx.export(
        network, (example,), file, dynamo=True, opset_version=18, output_names=names, verbose=False
    )
    return file, names


def by_onnx_runtime(file: Path, names: list[str]) -> Callable[[Any], Any]:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (taken,) = (one.name for one in session.get_inputs())

    def score(portion: np.ndarray) -> np.ndarray:
        pixels = (portion.astype(np.float32) / 255).transpose(0, 3, 1, 2)
        found = session.run(names, {taken: np.ascontiguousarray(pixels)})
        return found[names.index("pred_score")].ravel()

    return score


def by_openvino(file: Path, precision: dict[str, str]) -> Callable[[Any], Any]:
    """Return what scores by anomalib's inferencer, from a file in float32 as its export writes it."""
    import numpy as np
    import openvino
    from anomalib.deploy import OpenVINOInferencer

    os.chdir(file.parent)  # where the inferencer makes a folder for what it compiles
    openvino.save_model(
        openvino.convert_model(file), file.with_suffix(".xml"), compress_to_fp16=False
    )
    config = {"INFERENCE_NUM_THREADS": 1, **precision}
    inferencer = OpenVINOInferencer(file.with_suffix(".xml"), device="CPU", config=config)

    def score(portion: np.ndarray) -> np.ndarray:
        return np.asarray(inferencer.predict(portion[0]).pred_score).ravel()

    return score


def load_weights(network: Any, file: str) -> None:
    from safetensors.torch import load_file

    missing, _ = network.load_state_dict(load_file(file), strict=False)
    # What counts batches during a training is no weight.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing:
        sys.exit(f"{file} lacks {missing}")


# ---- the driver -------------------------------------------------------------------------------------


def make_environment(folder: Path, version: str) -> Path:
    """Make a virtual environment with anomalib, unless it is there; return its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    asked = "import importlib.metadata as m; m.version('openvino'); print(m.version('anomalib'))"
    installed = [python, "-c", asked]
    found = subprocess.run(installed, capture_output=True, text=True, check=False).stdout.strip()
    if found != version:
        command = [python, "-m", "pip", "install", "--quiet", f"anomalib=={version}"]
        command += ["--constraint", REPOSITORY / "constraints.txt", "torch", "torchvision"]
        command += ["onnx", "onnxruntime", "onnxscript", "openvino"]
        subprocess.run(command, check=True)
    return python


def prepare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Write images and weights where both find them."""
    import numpy as np
    from safetensors.torch import save_file

    from skad._features._timm import import_timm
    from skad._images import Geometry, as_image_source, iter_batches

    if args.images is None:
        from bench_patchcore import make_images

        images = make_images(args.number + SCORED)
    else:
        files = sorted(path for path in args.images.iterdir() if path.is_file())
        files = files[: args.number + SCORED]
        if len(files) <= SCORED:
            sys.exit(f"{args.images} holds {len(files)} images; more than {SCORED} are needed")
        batches = iter_batches(as_image_source(files), Geometry("squash", SIZE, None), BATCH)
        images = np.concatenate([batch.pixels for batch in batches])
    np.save(folder / "images.npy", images)
    weights = args.weights
    if weights is None:
        weights = folder / "weights.safetensors"
        save_file(import_timm().create_model(args.backbone).state_dict(), weights)
    return {
        "backbone": args.backbone,
        "weights": str(weights),
        "images": str(folder / "images.npy"),
        "number": len(images) - SCORED,
        "bank": str(folder / "bank.npz"),
        "projection": args.projection,
    }


def run(
    python: Path | str, library: str, job: dict, threads: int, script: Path = HERE
) -> dict[str, float]:
    """Run one library in a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [python, script, "--run", library, "--job", json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{library} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(job: dict, python: Path, repeats: int, threads: int) -> None:
    """Let both run in turn, and print a table of medians."""
    rows = []
    for i in range(repeats):
        rows.append(
            (
                run(python, "anomalib", job, threads),
                run(sys.executable, "skad", job, threads),
            )
        )
        print(f"run {i + 1} of {repeats}", file=sys.stderr, flush=True)
    print(f"\n| bank of {100 * job['ratio']:g} % | anomalib | skad | ratio |")
    print("| --- | --- | --- | --- |")
    for name in rows[0][0]:
        theirs, ours = ([row[i][name] for row in rows] for i in (0, 1))
        ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
        medians = (statistics.median(one) for one in (theirs, ours))
        print(f"| {name} | {' | '.join(map(shown, medians))} | {ratio:.2f} |")
    deviation = max(row[1]["deviation"] for row in rows)
    print(f"\nimage scores with anomalib's bank deviate by {deviation:.1e} at most")


def shown(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=Path, help="good ones, of which the last 64 are scored; default: generated"
    )
    parser.add_argument("--number", type=int, default=100, help="of images to learn from")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", type=Path, help="default: random, the same for both")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.01, 0.1])
    parser.add_argument(
        "--projection", type=int, default=128, help="dimension; anomalib: about 280"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--anomalib", default="2.7.0", metavar="VERSION")
    parser.add_argument("--venv", type=Path, default=REPOSITORY / "build" / "anomalib")
    parser.add_argument("--run", choices=["skad", "anomalib"], help=argparse.SUPPRESS)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        print(json.dumps({"skad": run_skad, "anomalib": run_anomalib}[args.run](args.job)))
        return
    python = make_environment(args.venv, args.anomalib)
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(args, Path(folder))
        for ratio in args.ratios:
            compare({**job, "ratio": ratio}, python, args.repeats, args.threads)


if __name__ == "__main__":
    main()
