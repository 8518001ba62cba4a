r"""What ReContrast reaches on a CPU after how much training: image size, batch, norms, steps.

Sets are folders in MVTec's layout below PATH. One training per set, recipe and seed is scored after
each of the ``--steps``; it goes on by ``warm_start``, so that every point costs the steps since the last
one alone. (The level of hard mining therefore rises over a tenth of the first of them.) The table of
docs/recontrast.md:

    python benchmarks/recontrast_recipe.py PATH --weights resnet18.safetensors --out recipe.jsonl \
        --recipe image_size=128 --recipe image_size=224,batch_size=8 \
        --recipe image_size=224,batch_size=8,bn=eval --steps 100 200

Each point is a line of the file; points that are there already are not repeated, and with ``--store`` a
training is taken up where it was. With ``--finish 100``, trainings that were kept get so many further
steps at a tenth of the rate. PatchCore's rows come from ``--recipe patchcore``. ``--show`` only prints
the table of such a file.
"""

from __future__ import annotations

import argparse
import ast
import json
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from skad import PatchCoreDetector, ReContrastDetector
from skad.datasets import load_folder

KEY = ("set", "backbone", "recipe", "seed", "steps")
HEAD = ("cpu_s", "auroc", "found", "false_alarms", "held_out")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", help="folder of the sets")
    parser.add_argument("--sets", nargs="+", default=["mvtec_pill", "kolektor_sdd"])
    parser.add_argument("--backbone", default="resnet18.tv_in1k")
    parser.add_argument("--weights", default="pretrained", help="a file, or 'pretrained'")
    parser.add_argument("--recipe", nargs="+", action="extend", default=[], help="name=value,...")
    parser.add_argument("--steps", nargs="+", type=int, default=[100, 200])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--finish",
        type=int,
        help="go on from what --store keeps, so many steps at a tenth of the rate",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--store", type=Path, help="folder in which detectors are kept")
    parser.add_argument("--out", type=Path, help="the file of results")
    parser.add_argument("--show", type=Path, help="file of results to show")
    args = parser.parse_args()
    if args.show:
        show(read(args.show))
        return
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        for name in args.sets:
            for recipe in args.recipe:
                study(args, name, recipe, seed)
    show(read(args.out))


def study(args: argparse.Namespace, name: str, recipe: str, seed: int) -> None:
    """Train one detector, and measure it after each of the steps that the file does not hold."""
    done = {tuple(row[k] for k in KEY) for row in read(args.out)}
    if args.finish:
        finish(args, name, recipe, seed, done)
        return
    point = dict(zip(KEY, (name, args.backbone, recipe, seed), strict=False))
    is_trained = recipe != "patchcore"
    wanted = [
        steps
        for steps in (sorted(args.steps) if is_trained else [0])
        if (*point.values(), steps) not in done
    ]
    if not wanted:
        return
    data = load_folder(args.data / name)
    detector, seconds = resume(args, point)
    for steps in wanted:
        if is_trained:
            detector.set_params(max_iter=steps)
        start = time.process_time()
        detector.fit(data.X_train)
        seconds += time.process_time() - start
        note(args, {**point, "steps": steps, "cpu_s": round(seconds)}, detector, data)
        if args.store and is_trained:
            stored(args, point).write_bytes(pickle.dumps((detector, seconds)))


def finish(
    args: argparse.Namespace, name: str, recipe: str, seed: int, done: set[tuple[Any, ...]]
) -> None:
    """Go on from a training that was kept, at a tenth of the rate: a schedule of one step."""
    values = (name, args.backbone, recipe, seed)
    kept = dict(zip(KEY, values, strict=False))
    point = {**kept, "recipe": f"{recipe}, then {args.finish} at a tenth of the rate"}
    if not stored(args, kept).exists():
        raise FileNotFoundError(f"{stored(args, kept)}: train it first, with --store.")
    detector, seconds = resume(args, kept)
    n_iter = detector.n_iter_
    if (*point.values(), n_iter + args.finish) in done:
        return
    rates = {"lr": detector.lr / 10, "encoder_lr": detector.encoder_lr / 10}
    data = load_folder(args.data / name)
    start = time.process_time()
    detector.set_params(max_iter=n_iter + args.finish, **rates).fit(data.X_train)
    seconds += time.process_time() - start
    note(args, {**point, "steps": detector.n_iter_, "cpu_s": round(seconds)}, detector, data)


def note(args: argparse.Namespace, row: dict[str, Any], detector: Any, data: Any) -> None:
    row = {**row, **measure(detector, data)}
    with args.out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def resume(args: argparse.Namespace, point: dict[str, Any]) -> tuple[Any, float]:
    """Take up a detector and the CPU seconds that it has taken, or make a new one."""
    if args.store and stored(args, point).exists():
        return pickle.loads(stored(args, point).read_bytes())
    common = {"weights": args.weights, "random_state": point["seed"], "precision": "bfloat16"}
    if point["recipe"] == "patchcore":
        return PatchCoreDetector(args.backbone, **common), 0.0
    detector = ReContrastDetector(args.backbone, **common, warm_start=True)
    return detector.set_params(**params_of(point["recipe"])), 0.0


def stored(args: argparse.Namespace, point: dict[str, Any]) -> Path:
    name = "-".join(str(value) for value in point.values())
    return args.store / f"{name}.pickle"


def params_of(recipe: str) -> dict[str, Any]:
    """Read ``image_size=224,bn=eval``."""
    pairs = (part.split("=") for part in recipe.split(","))
    return {name: literal(value) for name, value in pairs}


def literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except ValueError:  # a plain word
        return text


def measure(detector: Any, data: Any) -> dict[str, float]:
    """Ranking and verdicts on the test part, and the mean anomaly of the held-out good images."""
    scores = detector.score_samples(data.X_test)
    is_bad, is_called_bad = data.y_test == -1, scores < detector.offset_
    return {
        "auroc": float(roc_auc_score(is_bad, -scores)),
        "found": float(is_called_bad[is_bad].mean()),
        "false_alarms": float(is_called_bad[~is_bad].mean()),
        "held_out": float(-np.mean(detector.calibration_scores_)),
    }


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def show(rows: list[dict[str, Any]]) -> None:
    """Print the points as a table, means over seeds; of the ranking also the lowest and the highest."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("set", "backbone", "recipe", "steps"))
        groups.setdefault(key, []).append(row)
    print(f"| set | backbone | recipe | steps | seeds | {' | '.join(HEAD)} |")
    print("| --- " * (5 + len(HEAD)) + "|")
    for key, group in sorted(groups.items()):
        means = {name: np.mean([row[name] for row in group]) for name in HEAD}
        cells = {name: f"{mean:.3f}" for name, mean in means.items()} | {
            "cpu_s": f"{means['cpu_s']:.0f}"
        }
        if len(group) > 1:
            found = [row["auroc"] for row in group]
            cells["auroc"] += f" ({min(found):.3f} to {max(found):.3f})"
        print(f"| {' | '.join(map(str, (*key, len(group), *cells.values())))} |")


if __name__ == "__main__":
    main()
