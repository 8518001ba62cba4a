"""Distil skad/benchmark/published*.csv from a JSON file of figures transcribed from the papers.

The JSON file holds ``records`` with method, dataset, category, metric, value, source, backbone,
image_size and config. Which of them belong to which preset is said here; what the same tables print for
methods that skad does not have goes to published_others.csv::

    python tools/distil_published.py reference_results.json

Both files are made anew; with ``--out`` elsewhere, to be compared.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skad.benchmark._presets import PRESETS, SHOTS

OUT = Path(__file__).parents[1] / "skad" / "benchmark"
DATASETS = {
    "MVTecAD": "mvtec_ad",
    "MVTecLOCO": "mvtec_loco",
    "VisA": "visa",
    "APTOS": "aptos",
    "OCT2017": "oct2017",
    "ISIC2018": "isic2018",
}
METRICS = {
    *("image_auroc", "pixel_auroc", "aupro", "f1_optimal", "accuracy_at_f1_optimal"),
    *("false_positives_at_f1_optimal", "false_negatives_at_f1_optimal"),
}
BACKBONES = {
    "resnet50": "resnet50",
    "wrn50": "wide_resnet50_2",
    "resnet101": "resnet101",
    "wrn101": "wide_resnet101_2",
    "resnext101": "resnext101_32x8d",
}
# By the beginning of a source: methods whose figures there belong to presets.
OWN = {
    "PatchCore supp": ("PatchCore", "SPADE", "PaDiM"),
    "ReConPatch Table 6": ("ReConPatch-Ensemble", "PatchCore-Ensemble"),
    "ReConPatch supp": ("ReConPatch", "PatchCore"),
    "ReConPatch": ("ReConPatch",),
    "ReContrast": ("ReContrast",),
}
Criteria = tuple[str, tuple[str, ...], dict[str, Any]]


def criteria() -> dict[str, Criteria]:
    """Say method, sources and settings of the records behind each preset."""
    pc, rp, rc = "PatchCore", "ReConPatch", "ReContrast"
    supp = "PatchCore supp Table "
    found: dict[str, Criteria] = {}
    for share in (25, 10, 1):
        config = {"coreset_percent": share}
        found[f"patchcore-{share}"] = (pc, (f"{supp}S1", f"{supp}S2", f"{supp}S3"), config)
        found[f"reconpatch-1024-{share}"] = (rp, ("ReConPatch Table 1",), config)
        for name, backbone in BACKBONES.items():
            key = f"patchcore-{name}-{share}"
            found[key] = (pc, (f"{supp}S6",), {**config, "backbone": backbone})
        for n in SHOTS:
            found[f"patchcore-{share}-{n}shot"] = (pc, (f"{supp}S5",), {**config, "shots": n})
    for name in ("SPADE", "PaDiM"):
        found[name.lower()] = (name, (f"{supp}S1", f"{supp}S2", f"{supp}S3"), {})
        for n in SHOTS:
            found[f"{name.lower()}-{n}shot"] = (name, (f"{supp}S5",), {"shots": n})
    for layers in ([2, 3], [1, 2, 3]):
        key = f"patchcore-wrn101-{''.join(map(str, layers))}"
        found[key] = (pc, (f"{supp}S4",), {"levels": layers})
    found["patchcore-ensemble"] = ("PatchCore-Ensemble", ("ReConPatch Table 6",), {})
    table_s5 = ("ReConPatch supp Table S5",)
    found["patchcore-augmented"] = (pc, table_s5, {"augmented": True})
    found["reconpatch-augmented"] = (rp, table_s5, {"augmented": True})
    found["reconpatch"] = (rp, ("ReConPatch Table 4",), {"image_size": 224})
    for d in (64, 128, 256):
        found[f"reconpatch-{d}"] = (rp, ("ReConPatch Table 2",), {"f_dim": d})
    found["reconpatch-p5"] = (rp, ("ReConPatch Table 3",), {"levels": [2, 3]})
    found["reconpatch-p5-layers123"] = (
        *(rp, ("ReConPatch Table 3", "ReConPatch Table 5")),
        {"levels": [1, 2, 3]},
    )
    tables = ("ReConPatch Table 4", "ReConPatch Table 5")
    found["reconpatch-wrn101-480"] = (rp, tables, {"image_size": 480})
    for symbol, table, values in (
        ("k", "S1", (3, 7, 10, 15, 20)),
        ("m", "S2", (0.5, 1.5, 2.0)),
        ("alpha", "S3", (0.0, 0.25, 0.75, 1.0)),
    ):
        for value in values:
            sources = (f"ReConPatch supp Table {table}",)
            found[f"reconpatch-{symbol}{value}"] = (rp, sources, {symbol: value})
    found["reconpatch-no-g"] = (rp, ("ReConPatch supp Table S4",), {"projection": False})
    for size in (320, 480):
        key = f"reconpatch-ensemble-{size}"
        found[key] = ("ReConPatch-Ensemble", ("ReConPatch Table 6",), {"image_size": size})
    last = {"checkpoint": "last"}
    found["recontrast"] = (
        rc,
        ("ReContrast Table 1", "ReContrast Table 2", "ReContrast Table A1"),
        {"dataset": "MVTecAD"},
    )
    found["recontrast-visa"] = (rc, ("ReContrast Table 3", "ReContrast Table A3"), {})
    found["recontrast-seeds"] = (rc, ("ReContrast Table A2",), {})
    found["recontrast-stable"] = ("ReContrast-stable", ("ReContrast App. E text",), {})
    found["recontrast-multi-class"] = (rc, ("ReContrast Table 4",), {})
    found["recontrast-medical"] = (rc, ("ReContrast Table 5",), {})
    found["recontrast-loco"] = (rc, ("ReContrast Table A7",), {})
    for name in ("APTOS", "OCT2017", "ISIC2018"):
        found[f"recontrast-{name.lower()}"] = (rc, ("ReContrast Table 5",), {"dataset": name})
    for config in ("A", "B", "B+hm", "C", "C+cp", "D", "E-gl", "E"):
        key = f"recontrast-{config}"
        found[key] = (f"ReContrast-Config.{config}", ("ReContrast Table 6",), last)
    a4 = ("ReContrast Table A4",)
    found["recontrast-no-mining"] = (rc, a4, {"hard_mining_alpha": "-inf"})
    for alpha in (-2.0, -1.0, 0.0, 0.5, 1.5, 2.0):
        found[f"recontrast-alpha{alpha}"] = (rc, a4, {"hard_mining_alpha": alpha})
    for backbone in ("resnet18", "resnet50"):
        key = f"recontrast-{backbone}"
        found[key] = (rc, ("ReContrast Table A5",), {"backbone": backbone})
    for maps in ("frozen", "trained"):
        wanted = {"maps_used": f"3 {maps} only"}
        found[f"recontrast-maps-{maps}"] = (rc, ("ReContrast Table A6",), wanted)
    return {name: found[name] for name in PRESETS if name in found}


def is_shown(record: dict[str, Any]) -> bool:
    """Tell whether tables have a column for a figure."""
    return (
        record["metric"] in METRICS
        # Means over textures or objects alone are left out.
        and not record["category"].startswith("avg_")
        and record["unit"] in ("percent", "count", None)
    )


def matches(record: dict[str, Any], wanted: Criteria) -> bool:
    method, sources, config = wanted
    known = {**record, **record["config"]}
    return (
        record["method"] == method
        and record["source"] in sources
        and is_shown(record)
        and all(known.get(name) == value for name, value in config.items())
    )


def key(record: dict[str, Any]) -> tuple[str, str, str]:
    """Name data set, metric and category as results do."""
    dataset, category = DATASETS[record["dataset"]], record["category"]
    if dataset == "mvtec_loco":
        return dataset, f"{record['metric']}_{category}", "avg"
    # A data set without categories is one, named after itself.
    return dataset, record["metric"], dataset if category == "all" else category


def rows(records: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for preset, wanted in criteria().items():
        seen = set()
        for record in (r for r in records if matches(r, wanted)):
            # The first source in the list is the one with the most digits or the whole table.
            if key(record) not in seen:
                seen.add(key(record))
                yield (preset, *key(record), record["value"], record["source"])


def rows_of_others(records: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    """Figures of methods that skad does not have, in tables that it has rows of."""
    used = {source for _, sources, _ in criteria().values() for source in sources}
    for record in records:
        source = record["source"]
        own = next((names for start, names in OWN.items() if source.startswith(start)), ())
        is_own = any(f"{record['method']}-".startswith(f"{name}-") for name in own)
        if source in used and not is_own and is_shown(record):
            method = record["method"]
            if source == "ReContrast Table A5":  # a row for each backbone
                method += f" with {record['backbone']}"
            shots = record["config"].get("shots", "")
            yield (method, *key(record), record["value"], shots, source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("--out", type=Path, default=OUT, help="folder, default: the package's")
    args = parser.parse_args()
    records = json.loads(args.records.read_text())["records"]
    found = sorted(rows(records))
    head = ["preset", "dataset", "metric", "category", "value", "source"]
    write(args.out / "published.csv", head, found)
    others = list(rows_of_others(records))
    head = ["method", "dataset", "metric", "category", "value", "shots", "source"]
    write(args.out / "published_others.csv", head, others)
    without = sorted(set(PRESETS) - {row[0] for row in found})
    print(f"{len(found)} figures for {len(PRESETS) - len(without)} presets; none for {without}")
    print(f"{len(others)} figures of {len({row[0] for row in others})} other methods")


def write(file: Path, head: list[str], lines: list[tuple[Any, ...]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(lines)


if __name__ == "__main__":
    main()
