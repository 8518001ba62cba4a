"""Local copies of public data sets, and image folders of your own. Nothing is downloaded."""

from skad.datasets._folders import (
    load_btad,
    load_folder,
    load_mpdd,
    load_mvtec_ad,
    load_mvtec_loco,
)
from skad.datasets._masks import read_mask
from skad.datasets._medical import load_aptos, load_isic2018, load_oct2017
from skad.datasets._registry import DATASETS, Dataset
from skad.datasets._surfaces import load_kolektor_sdd, load_magnetic_tile
from skad.datasets._visa import load_visa

__all__ = [
    "DATASETS",
    "Dataset",
    "load_aptos",
    "load_btad",
    "load_folder",
    "load_isic2018",
    "load_kolektor_sdd",
    "load_magnetic_tile",
    "load_mpdd",
    "load_mvtec_ad",
    "load_mvtec_loco",
    "load_oct2017",
    "load_visa",
    "read_mask",
]
