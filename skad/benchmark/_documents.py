"""Every table and figure of the papers, and what reproduces it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from skad.benchmark._presets import TABLES
from skad.benchmark._published import methods_in

_MAPS = "benchmarks/score_maps.py"
_DRAWING = "a drawing of the method"


class Document(NamedTuple):
    """A paper, or its supplement.

    Parameters
    ----------
    title : str
    source : str
        How the sources of published figures begin that were read in it.
    prefix : str
        How the names of :data:`TABLES` begin that are its tables and figures.
    tables : tuple of str
        Their numbers.
    figures : dict of str to str
        By number, what reproduces them beside the presets of this name; scripts stand in skad's
        repository.
    remarks : dict of str to str, default={}
        The same for some of the tables; or what the presets leave out.
    """

    title: str
    source: str
    prefix: str
    tables: tuple[str, ...]
    figures: dict[str, str]
    remarks: dict[str, str] = {}


DOCUMENTS = (
    Document(
        "PatchCore, supplement",
        "PatchCore supp",
        "patchcore",
        ("S1", "S2", "S3", "S4", "S5", "S6"),
        {
            "S1": f"{_MAPS} --mistakes (false alarms at the F1-optimal threshold)",
            "S2": f"{_MAPS} --mistakes (missed defects at the F1-optimal threshold)",
            "S3": "benchmarks/table_figures.py curves, from the results of --preset patchcore-table-s1",
            "S4": "benchmarks/table_figures.py values",
            "S5": "benchmarks/table_figures.py values",
            "S6": "benchmarks/subsamplers.py, which has k-means too",
        },
    ),
    Document(
        "ReConPatch",
        "ReConPatch",
        "reconpatch",
        ("1", "2", "3", "4", "5", "6"),
        {
            "1": _DRAWING,
            "2": _DRAWING,
            "3": "benchmarks/reconpatch_figures.py histogram",
            "4": f"{_MAPS} --method reconpatch --dataset mvtec_ad",
        },
    ),
    Document(
        "ReConPatch, supplement",
        "ReConPatch supp",
        "reconpatch",
        ("S1", "S2", "S3", "S4", "S5", "S6"),
        {
            "S1": "benchmarks/reconpatch_figures.py umap",
            "S2": "benchmarks/table_figures.py values",
            "S3": f"{_MAPS} --method reconpatch --dataset mvtec_ad",
            "S4": f"{_MAPS} --method reconpatch --dataset btad",
        },
        {"S6": "benchmarks/reconpatch_figures.py time"},
    ),
    Document(
        "ReContrast",
        "ReContrast",
        "recontrast",
        ("1", "2", "3", "4", "5", "6", "A1", "A2", "A3", "A4", "A5", "A6", "A7"),
        {
            "1": _DRAWING,
            "2": _DRAWING,
            "3": _DRAWING,
            "4": "benchmarks/recontrast_figures.py landscape",
            "5": f"benchmarks/recontrast_figures.py curves (a, b); {_MAPS} --method recontrast "
            "--set hard_mining=False (c)",
            "A1": f"{_MAPS} --method recontrast --dataset mvtec_ad, with --set hard_mining=False too",
            "A2": f"{_MAPS} --method recontrast --dataset visa",
            "A3": f"{_MAPS} --method recontrast --dataset aptos (oct2017, isic2018)",
        },
        {"A6": "without the row of two frozen encoders"},
    ),
)


def list_documents() -> Iterator[str]:
    """Say for each table and figure what reproduces it.

    Yields
    ------
    str
        Lines of ``--list``.
    """
    for document in DOCUMENTS:
        yield document.title
        for number in document.tables:
            yield f"  {f'Table {number}':<10} {_of_table(document, number)}"
        for number, script in document.figures.items():
            ways = [*_presets(document, "figure", number), script]
            yield f"  {f'Figure {number}':<10} {'; '.join(ways)}"


def _of_table(document: Document, number: str) -> str:
    """Name the presets or the script of a table, and whose figures stand beside them."""
    ways = _presets(document, "table", number)
    ways += [document.remarks[number]] if number in document.remarks else []
    beside = methods_in(f"{document.source} Table {number}")
    if beside:
        ways.append(f"beside it, as published: {', '.join(beside)}")
    return "; ".join(ways)


def _presets(document: Document, kind: str, number: str) -> list[str]:
    name = f"{document.prefix}-{kind}-{number.lower()}"
    return [f"--preset {name}"] if name in TABLES else []
