"""Local copies of public data sets, and image folders of your own. Nothing is downloaded."""

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
