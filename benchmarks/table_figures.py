r"""Draw figures of PatchCore's and ReConPatch's supplements from a folder of `python -m skad.benchmark`.

``curves``: precision-recall and ROC curves of the images, a line for each category (PatchCore, Figure
S3), and a table of the classification error at full recall and at the F1-optimal threshold. ``values``:
image AUROC, pixel AUROC and AUPRO of all rows (PatchCore, Figures S4 to S6; ReConPatch, Figure S2)::

    python -m skad.benchmark mvtec_ad --dataset mvtec_ad --preset patchcore-table-s1 --out s1
    python benchmarks/table_figures.py curves s1 --out pictures
    python -m skad.benchmark mvtec_ad --dataset mvtec_ad --preset patchcore-figure-s4 --out s4
    python benchmarks/table_figures.py values s4 --x patch_size --by image_size --out pictures
    python benchmarks/table_figures.py values s6 --x coreset_size --by coreset_method --out pictures
    python benchmarks/table_figures.py values s2 --x target_dim embedding_dim --by detector
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

from skad.metrics import f1_optimal_threshold, image_auroc, threshold_at_full_recall

METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
Result = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("figure", choices=["curves", "values"])
    parser.add_argument("results", type=Path, help="--out of python -m skad.benchmark")
    parser.add_argument("--x", nargs="+", default=[], help="parameters; of a row the first it has")
    parser.add_argument("--by", help="a parameter, or 'detector': a line for each value")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for pictures")
    args = parser.parse_args()
    results = read(args.results)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.figure == "curves":
        for title, row in grouped(results, title_of).items():
            print(draw_curves(title, row, args.out))
    else:
        print(draw_values(results, args))


def read(folder: Path) -> list[Result]:
    files = sorted(folder.glob("*/*.json"))
    found = [{**json.loads(file.read_text()), "folder": file.parent.name} for file in files]
    if not found:
        raise SystemExit(f"{folder} holds no results: pass the --out of python -m skad.benchmark.")
    return found


def grouped(results: list[Result], key: Callable[[Result], Any]) -> dict[Any, list[Result]]:
    groups: dict[Any, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def title_of(result: Result) -> str:
    changes = "".join(f", {name}={value}" for name, value in result["changes"].items())
    return f"{result['title']}{changes}"


# ---- curves ---------------------------------------------------------------------------------------


def draw_curves(title: str, row: list[Result], out: Path) -> Path:
    """Both curves of a row, and the errors of its categories as a table."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    print(f"\n{title}\n\n| category | seed | image AUROC | error at full recall | at best F1 |")
    print("| --- " * 5 + "|")
    for result in row:
        y, scores = (np.asarray(result["images"][name]) for name in ("labels", "scores"))
        name = f"{result['category']}, seed {result['seed']}"
        PrecisionRecallDisplay.from_predictions(y == -1, -scores, name=name, ax=left)
        RocCurveDisplay.from_predictions(y == -1, -scores, name=name, ax=right)
        errors = [
            100 * (1 - choose(y, scores).accuracy)
            for choose in (threshold_at_full_recall, f1_optimal_threshold)
        ]
        cells = (result["category"], result["seed"], f"{100 * image_auroc(y, scores):.1f}")
        print(f"| {' | '.join(map(str, cells))} | {errors[0]:.1f} % | {errors[1]:.1f} % |")
    for panel in (left, right):
        panel.legend(fontsize=6)
    figure.suptitle(title)
    return saved(figure, out, f"curves-{row[0]['folder']}")


# ---- values ---------------------------------------------------------------------------------------


def draw_values(results: list[Result], args: argparse.Namespace) -> Path:
    """Means over categories and seeds, a panel for each metric."""
    shown = [name for name in METRICS if any(name in r["figures"] for r in results)]
    figure, panels = plt.subplots(
        1, len(shown), figsize=(4.5 * len(shown), 4), layout="constrained", squeeze=False
    )
    for name, panel in zip(shown, panels[0], strict=True):
        for line, rows in grouped(results, lambda r: parameter(r, [args.by])).items():
            points = grouped(rows, lambda r: parameter(r, args.x) if args.x else title_of(r))
            if args.x:
                points = dict(sorted(points.items(), key=lambda point: str_or_number(point[0])))
            values = [
                100 * np.mean([r["figures"][name] for r in group if name in r["figures"]])
                for group in points.values()
            ]
            label = None if line is None else f"{args.by} = {line}"
            panel.plot([str(x) for x in points], values, "o-" if args.x else "o", label=label)
            rounded = dict(zip(points, np.round(values, 2).tolist(), strict=True))
            print(f"{name}, {label or 'all rows'}: {rounded}")
        panel.set(title=f"{METRICS[name]}, %", xlabel=" or ".join(args.x))
        panel.tick_params("x", rotation=0 if args.x else 90)
        if args.by:
            panel.legend()
    return saved(figure, args.out, f"values-{args.results.name}")


def parameter(result: Result, names: list[str | None]) -> Any:
    """Look up the first of these parameters that a row's detector has."""
    settings = result["settings"]
    for name in filter(None, names):
        if name == "detector":
            return settings["detector"]
        if name in settings["params"] and settings["params"][name] != "None":
            return literal(settings["params"][name])
    return None


def literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except ValueError:  # not a literal
        return text


def str_or_number(value: Any) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if is_number else 0.0, str(value)


def saved(figure: Any, out: Path, name: str) -> Path:
    path = out / f"{name}.png"
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
