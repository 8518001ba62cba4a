"""Local copies of public data sets, and image folders of your own. Nothing is downloaded."""

from typing import TYPE_CHECKING

from skad._common.lazy import lazy_names

if TYPE_CHECKING:
    from skad.datasets._dataset import Dataset
    from skad.datasets._loaders import (
        load_aptos,
        load_btad,
        load_folder,
        load_isic2018,
        load_kolektor_sdd,
        load_kolektor_sdd2,
        load_magnetic_tile,
        load_mpdd,
        load_mvtec_ad,
        load_mvtec_loco,
        load_oct2017,
        load_visa,
    )
    from skad.datasets._masks import read_mask
    from skad.datasets._registry import DATASETS

__all__ = [
    "DATASETS",
    "Dataset",
    "load_aptos",
    "load_btad",
    "load_folder",
    "load_isic2018",
    "load_kolektor_sdd",
    "load_kolektor_sdd2",
    "load_magnetic_tile",
    "load_mpdd",
    "load_mvtec_ad",
    "load_mvtec_loco",
    "load_oct2017",
    "load_visa",
    "read_mask",
]

_HOMES = {
    "DATASETS": "_registry",
    "Dataset": "_dataset",
    "load_aptos": "_loaders",
    "load_btad": "_loaders",
    "load_folder": "_loaders",
    "load_isic2018": "_loaders",
    "load_kolektor_sdd": "_loaders",
    "load_kolektor_sdd2": "_loaders",
    "load_magnetic_tile": "_loaders",
    "load_mpdd": "_loaders",
    "load_mvtec_ad": "_loaders",
    "load_mvtec_loco": "_loaders",
    "load_oct2017": "_loaders",
    "load_visa": "_loaders",
    "read_mask": "_masks",
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
