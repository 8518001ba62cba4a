"""What int8 costs in ranking, and brings in time: files of export_onnx with and without int8_from.

The ranges of the integers, and the threshold of either file, come from the same held-out good images: a
third of those of the training part, which the detector has not seen. Sets are folders in MVTec's layout:

    python benchmarks/int8_study.py PATH/mvtec_pill PATH/casting --backbone skad_nano
    python benchmarks/int8_study.py PATH/* --backbone resnet18.tv_in1k --weights resnet18.safetensors

Times are those of the graph alone, one thread, one image at a time, both files in turn, in CPU seconds.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
from sklearn.metrics import roc_auc_score

import skad
from skad import PatchCoreDetector
from skad.datasets import load_folder


def session_of(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def scores_of(session, inputs):
    return np.array([float(session.run(["score"], one)[0][0]) for one in inputs])


def paired_times(sessions, inputs):
    """CPU milliseconds per image, (n_images, n_sessions), in turn."""
    times = []
    for one in inputs:
        row = []
        for session in sessions:
            start = time.thread_time()
            session.run(["score", "map"], one)
            row.append(1e3 * (time.thread_time() - start))
        times.append(row)
    return np.array(times[2:])


def study(path, args):
    data = load_folder(path)
    good, rng = list(data.X_train), np.random.default_rng(args.seed)
    good = [good[i] for i in rng.permutation(len(good))[: args.images]]
    n_fit = 2 * len(good) // 3
    train, held = good[:n_fit], good[n_fit:]
    chosen = rng.permutation(len(data.y_test))[: args.test_images]
    tested, is_bad = [data.X_test[i] for i in chosen], data.y_test[chosen] == -1
    weights = {} if args.weights is None else {"weights": args.weights}
    det = PatchCoreDetector(args.backbone, image_size=224, random_state=args.seed, **weights).fit(
        train
    )
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: Path(folder) / f"{kind}.onnx" for kind in ("float32", "int8")}
        skad.export_onnx(det, files["float32"], train[:4], tolerance=1e-4)
        skad.export_onnx(det, files["int8"], train[:4], int8_from=held, tolerance=0.9)
        line = skad.load(files["float32"])
        sessions = {kind: session_of(file) for kind, file in files.items()}
        inputs, of_held = list(line._iter_inputs(tested)), list(line._iter_inputs(held))
        times = paired_times(list(sessions.values()), inputs[:22])
        for i, (kind, session) in enumerate(sessions.items()):
            scores, of_good = scores_of(session, inputs), scores_of(session, of_held)
            is_called_bad = scores < np.quantile(of_good, 0.05, method="lower")
            yield {
                "set": path.name,
                "file": kind,
                "AUROC": roc_auc_score(is_bad, -scores),
                "found": is_called_bad[is_bad].mean(),
                "false alarms": is_called_bad[~is_bad].mean(),
                "ms": np.median(times[:, i]),
                "ratio": np.median(times[:, i] / times[:, 0]),
                "MB": files[kind].stat().st_size / 1e6,
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--backbone", default="skad_nano")
    parser.add_argument("--weights")
    parser.add_argument("--images", type=int, default=90, help="good ones, of training part")
    parser.add_argument("--test-images", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    print("| set | file | AUROC | found | false alarms | ms | ratio | MB |")
    print("|---|---|---|---|---|---|---|---|")
    for path in args.sets:
        for row in study(path, args):
            print(line_of(row), flush=True)


def line_of(row):
    shown = {"AUROC": ".4f", "ms": ".1f", "MB": ".1f"}
    cells = [
        value if isinstance(value, str) else format(value, shown.get(name, ".2f"))
        for name, value in row.items()
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
