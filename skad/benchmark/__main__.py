"""``python -m skad.benchmark DATA --preset NAME``: tables of detectors on local copies of data sets."""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skad._common.forks import LOADING
from skad._common.text import readable
from skad.benchmark._grid import parse_grids
from skad.datasets import DATASETS

if TYPE_CHECKING:
    from skad.benchmark._preset import Preset

_METHODS = ("patchcore", "reconpatch", "recontrast", "dinomaly", "padim", "spade")
_EXAMPLES = """\
examples:
  python -m skad.benchmark mvtec_ad --dataset mvtec_ad --preset patchcore-table-s1 --out tables
  python -m skad.benchmark mvtec_ad visa --dataset mvtec_ad visa --preset recontrast --out tables
  python -m skad.benchmark my_parts --method patchcore --set backbone=skad_nano --out tables
  python -m skad.benchmark my_parts --method patchcore --seeds 0 1 2 --out tables \\
      --row backbone=skad_nano --row backbone=resnet18 weights=resnet18.safetensors
  python -m skad.benchmark my_parts --method reconpatch --set k=3,5 --set alpha=0.25,0.5 --seeds 0 1 2 \\
      --out tables
"""


_DATASET_HELP = f"layout of DATA, or one for each folder: {', '.join(DATASETS)} (default: folder)"
_SET_HELP = "parameters to change; every combination of values is a row"
_ROW_HELP = "a row, or several, with parameters that belong together; given once for each"
_WITHIN_HELP = (
    "compare each row with the first of the same values of these (default: the first row)"
)


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
    if not args.data or args.out is None:
        parser.error("DATA and --out are needed (or --list)")
    with LOADING:  # not before: --help and wrong usage are told at once
        from skad.benchmark._rows import rows_of
        from skad.benchmark._runner import run
        from skad.benchmark._tables import write_tables
    try:
        presets = _chosen(args.preset, args.method)
        grids = [{"verbose": [args.verbose], **g} for g in parse_grids(args.set, args.row)]
        run(
            args.data,
            presets,
            args.out,
            dataset=args.dataset,
            categories=args.categories,
            seeds=args.seeds,
            grid=grids,
            n_images=args.images,
            rotations=args.rotations,
            map_size=args.map_size or None,
            n_jobs=args.jobs,
            backend=args.backend,
            verbose=1,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"interrupted: the same command runs what is not yet in {args.out}")
    rows = rows_of(presets, grids, args.images, args.rotations)
    files = write_tables(args.out, order=rows, within=args.within)
    print(files[0].read_text(encoding="utf-8"))
    print("written: " + ", ".join(readable(str(file)) for file in files))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m skad.benchmark",
        description="Run detectors over the categories of a local data set.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", nargs="*", type=Path, metavar="DATA", help="folders of the data sets")
    add(
        "--dataset",
        nargs="+",
        choices=DATASETS,
        default="folder",
        metavar="NAME",
        help=_DATASET_HELP,
    )
    add("--categories", nargs="+", metavar="NAME", help="default: all")
    add("--preset", nargs="+", default=[], metavar="NAME", help="rows or tables of the papers")
    add("--method", nargs="+", choices=_METHODS, default=[], help="detectors with skad's defaults")
    add(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE[,VALUE...]",
        help=_SET_HELP,
    )
    add(
        "--row",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME=VALUE[,VALUE...]",
        help=_ROW_HELP,
    )
    add("--within", nargs="+", default=[], metavar="NAME", help=_WITHIN_HELP)
    add(
        "--seeds",
        nargs="+",
        type=int,
        metavar="SEED",
        help="tables show means (default: the preset's)",
    )
    add(
        "--images",
        type=int,
        metavar="N",
        help="training images per category, at most (default: all)",
    )
    add(
        "--rotations",
        type=int,
        metavar="N",
        help="learn each training image in N directions (default: the preset's, mostly 1)",
    )
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for results and tables; several runs may share it",
    )
    add(
        "--map-size",
        type=int,
        default=256,
        help="thin heat maps out to this; 0: never (default: 256)",
    )
    add("--jobs", type=int, help="number of fits at the same time")
    add("--backend", choices=["loky", "threading", "dask"], help="joblib's")
    add("--verbose", action="store_const", const=1, default=0, help="report every stage of a fit")
    add("--list", action="store_true", help="print presets and tables")
    return parser


def _chosen(names: Sequence[str], methods: Sequence[str]) -> dict[str, Preset]:
    """Presets by name; tables are the presets in them."""
    with LOADING:
        from skad.benchmark._presets import PRESETS, TABLES
        from skad.benchmark._rows import with_defaults

    known = [*PRESETS, *TABLES]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"no preset {name!r}.{hint} --list shows all.")
    if not names and not methods:
        raise ValueError("nothing to run: name a --preset or a --method.")
    rows = [row for name in names for row in TABLES.get(name, (name,))]
    own = {f"{method}-defaults": with_defaults(method) for method in methods}
    return {row: PRESETS[row] for row in rows} | own


def _print_presets() -> None:
    with LOADING:
        from skad.benchmark._documents import list_documents
        from skad.benchmark._presets import PRESETS, TABLES
        from skad.benchmark._published import has_published

    for name, preset in PRESETS.items():
        print(
            f"{name:<28} {preset.title}{'' if has_published(name) else ' (no published figures)'}"
        )
    print()
    for name, rows in TABLES.items():
        print(f"{name:<28} {', '.join(rows)}")
    print("\nThe papers' tables and figures (scripts are in skad's repository)\n")
    for line in list_documents():
        print(textwrap.fill(line, 110, subsequent_indent=" " * 13, drop_whitespace=True))
    notes: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        notes.setdefault(preset.note, []).append(name)
    for note, names in notes.items():
        if note:
            print()
            print(textwrap.fill(f"{', '.join(names)}: {note}.", 100))


if __name__ == "__main__":
    main()
