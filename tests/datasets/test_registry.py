"""The table of data sets: its rows, their loaders and docstrings, and the docs agree."""

import inspect
import pickle
import re
from pathlib import Path

import pytest
from dataset_trees import plant, plant_category

import skad.datasets
from skad.datasets import DATASETS

LOADERS = {name: getattr(skad.datasets, f"load_{name}") for name in DATASETS}
PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"


@pytest.fixture
def parts(tmp_path):
    """Two categories."""
    for name in ("bottle", "cable"):
        plant_category(tmp_path / "parts" / name)
    return tmp_path / "parts"


def options(function) -> dict:
    """Parameters by keyword alone, with their defaults."""
    return {
        p.name: p.default
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }


def test_names():
    assert list(DATASETS) == [
        *("mvtec_ad", "mvtec_loco", "visa", "btad", "mpdd", "magnetic_tile", "kolektor_sdd"),
        *("kolektor_sdd2", "aptos", "oct2017", "isic2018", "folder"),
    ]
    assert all(dataset.name == name for name, dataset in DATASETS.items())
    assert DATASETS["mvtec_ad"].title == "MVTec AD"


def test_every_loader_has_a_row():
    loaders = {name for name in skad.datasets.__all__ if name.startswith("load_")}
    assert {loader.__name__ for loader in LOADERS.values()} == loaders


@pytest.mark.parametrize("name", DATASETS)
def test_a_loader_is_its_row(name, monkeypatch):
    """It passes everything on, and what it has by default is what the row has by default."""
    passed = {}

    def load(self, path, category=None, **options):
        passed.update(dataset=self.name, path=path, category=category, **options)

    monkeypatch.setattr(skad.datasets.Dataset, "load", load)
    given = {parameter: object() for parameter in inspect.signature(LOADERS[name]).parameters}
    LOADERS[name](**given)
    assert passed == {"dataset": name, "category": None, **given}
    assert options(LOADERS[name]) == options(DATASETS[name].layout.read)


@pytest.mark.parametrize("name", DATASETS)
def test_docstrings_are_complete(name):
    loader, dataset = LOADERS[name], DATASETS[name]
    words = " ".join(inspect.getdoc(loader).split())
    for said in (dataset.url, dataset.licence, *dataset.official_categories):
        assert said in words
    assert " ".join(dataset.reference.split()) in words
    assert dataset.layout.tree.splitlines()[1].strip() in inspect.getdoc(loader)
    sections = re.findall(r"^(\w+)\n-+$", inspect.getdoc(loader), re.MULTILINE)
    wanted = ["Parameters", "Returns", "Raises", "Warns", "References", "Examples"]
    if not dataset.layout.warnings:
        wanted.remove("Warns")
    if name == "folder":
        wanted.remove("References")
    assert sections == wanted
    parameters = inspect.getdoc(loader).partition("Parameters\n")[2].partition("Returns\n")[0]
    described = re.findall(r"^(\w+) : .*?(?:default=(.+))?$", parameters, re.MULTILINE)
    assert described == [
        (p.name, "" if p.default is p.empty else repr(p.default))
        for p in inspect.signature(loader).parameters.values()
    ]


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "folder"])
def test_the_page_agrees(name):
    (line,) = re.findall(rf"^\| `load_{name}` .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    dataset = DATASETS[name]
    _, _, categories, licence, link, _, _ = line.split("|")
    assert categories.strip() == str(len(dataset.official_categories) or "-")
    assert licence.strip(" *\\") == re.sub(r", (not for|as others).*", "", dataset.licence)
    assert f"({dataset.url})" in link


@pytest.mark.parametrize("name", DATASETS)
def test_messages_lead_to_the_images(tmp_path, name):
    """Nothing is downloaded."""
    with pytest.raises(FileNotFoundError, match="absent': no such folder") as error:
        LOADERS[name](tmp_path / "absent")
    dataset = DATASETS[name]
    for said in (dataset.layout.tree.splitlines()[1], dataset.url, dataset.licence):
        assert said in str(error.value)
    assert str(tmp_path / "absent") + "\n" in str(error.value)


@pytest.mark.parametrize("call", ["load", "categories"])
def test_a_file_is_no_folder(tmp_path, call):
    (tmp_path / "set.zip").write_bytes(b"PK")
    for dataset in DATASETS.values():
        with pytest.raises(ValueError, match=r"set\.zip' is a file: unpack"):
            getattr(dataset, call)(tmp_path / "set.zip")


def test_folders_by_name(parts):
    for name in ("folder", "mvtec_ad", "mpdd", "btad", "mvtec_loco", "visa"):
        assert DATASETS[name].categories(parts) == ["bottle", "cable"]
        assert DATASETS[name].categories(str(parts / "cable")) == ["cable"]
    assert DATASETS["folder"].load(parts, "cable").category == "cable"
    assert DATASETS["folder"].load(parts / "cable").category == "cable"


def test_options_by_name(parts):
    plant(parts, "cable/validation/good/7.png")
    data = DATASETS["mvtec_loco"].load(parts, "cable", validation=True)
    assert len(data.X_train) == 3
    with pytest.raises(TypeError, match="test_size"):
        DATASETS["mvtec_loco"].load(parts, "cable", test_size=0.5)


def test_a_data_set_without_categories_has_its_name(tmp_path):
    plant(tmp_path, "train/NORMAL/1.jpeg", "test/NORMAL/2.jpeg")
    dataset = DATASETS["oct2017"]
    assert dataset.categories(tmp_path) == ["oct2017"]
    assert dataset.load(tmp_path, "oct2017").X == dataset.load(tmp_path).X
    with pytest.raises(ValueError, match=r"no category 'CNV'.* The categories are oct2017"):
        dataset.load(tmp_path, "CNV")


@pytest.mark.parametrize("name", DATASETS)
def test_workers_get_a_row(name):
    assert pickle.loads(pickle.dumps(DATASETS[name])) == DATASETS[name]


def test_rows_are_fixed():
    with pytest.raises(AttributeError):
        DATASETS["visa"].title = "x"
