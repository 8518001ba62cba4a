"""``python -m skad.benchmark DATA --preset NAME``: a paper's table on a local copy of its data set."""

from __future__ import annotations

import argparse
import ast
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skad._validation.text import readable
from skad.benchmark._presets import PRESETS, TABLES, Preset
from skad.benchmark._runner import run, with_defaults
from skad.benchmark._tables import write_tables
from skad.datasets import DATASETS

_METHODS = ("patchcore", "reconpatch", "recontrast")
_EXAMPLES = """\
examples:
  python -m skad.benchmark mvtec_ad --dataset mvtec_ad --preset patchcore-table-s1 --out tables
  python -m skad.benchmark visa --dataset visa --preset recontrast-visa --categories pcb1 --out tables
  python -m skad.benchmark my_parts --method patchcore --set backbone=skad_nano --out tables
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, default=None
        None: those of the process.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.list:
        _print_presets()
        return
    if args.data is None or args.out is None:
        parser.error("DATA and --out are needed (or --list)")
    try:
        run(
            args.data,
            _chosen(args.preset, args.method),
            args.out,
            dataset=args.dataset,
            categories=args.categories,
            seed=args.seed,
            changes={**dict(map(_change, args.set)), "verbose": args.verbose},
            map_size=args.map_size or None,
            n_jobs=args.jobs,
            backend=args.backend,
            verbose=1,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"interrupted; the same command goes on with what {args.out} lacks")
    files = write_tables(args.out)
    print(files[0].read_text(encoding="utf-8"))
    print("written: " + ", ".join(readable(str(file)) for file in files))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m skad.benchmark",
        description="Run detectors over the categories of a local data set.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", nargs="?", type=Path, help="the data set's folder")
    parser.add_argument("--dataset", choices=DATASETS, default="folder", help="its layout")
    parser.add_argument("--preset", nargs="+", default=[], help="rows or tables; see --list")
    parser.add_argument("--method", nargs="+", choices=_METHODS, default=[], help="skad's defaults")
    parser.add_argument("--categories", nargs="+", help="some of them; all")
    parser.add_argument("--out", type=Path, help="folder for results and tables")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="parameters to change"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--map-size", type=int, default=256, help="thin heat maps out to this; 0: never (256)"
    )
    parser.add_argument("--jobs", type=int, help="fits at the same time")
    parser.add_argument("--backend", choices=["loky", "threading", "dask"], help="joblib's")
    parser.add_argument("--verbose", action="store_const", const=1, default=0, help="every stage")
    parser.add_argument("--list", action="store_true", help="print presets and tables")
    return parser


def _chosen(names: Sequence[str], methods: Sequence[str]) -> dict[str, Preset]:
    """Presets by name; tables are the presets in them."""
    known = [*PRESETS, *TABLES]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"no preset {name!r}.{hint} --list shows all.")
    if not names and not methods:
        raise ValueError("say what to run: --preset or --method.")
    rows = [row for name in names for row in TABLES.get(name, (name,))]
    own = {f"{method}-defaults": with_defaults(method) for method in methods}
    return {row: PRESETS[row] for row in rows} | own


def _change(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text!r}: write NAME=VALUE.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _print_presets() -> None:
    for name, preset in PRESETS.items():
        print(f"{name:<28} {preset.title}")
    print()
    for name, rows in TABLES.items():
        print(f"{name:<28} {', '.join(rows)}")


if __name__ == "__main__":
    main()
