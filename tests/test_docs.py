"""The documentation: its Python runs, its links lead somewhere, nothing public is missing from it."""

import importlib
import re
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
import skops.io
from conftest import make_detector
from dataset_trees import plant, plant_text
from exported_files import need_libraries
from PIL import Image
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import skad
from skad import PatchCoreDetector, ReConPatchDetector, ReContrastDetector, ScoreFusionDetector
from skad.utils.estimator_checks import defective_images, good_images

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES = [*TEXTS, *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")
PUBLIC = [
    "skad",
    "skad.benchmark",
    "skad.cli",
    "skad.datasets",
    "skad.features",
    "skad.inspection",
    "skad.metrics",
    "skad.model_selection",
    "skad.preprocessing",
    "skad.utils.estimator_checks",
]
# What a page says, and what takes seconds instead.
SMALLER = {
    '"resnet18.tv_in1k", max_iter=500, image_size=256': '"skad_nano", max_iter=2, image_size=32',
    "max_iter=2000": "max_iter=3",
    '"resnet18", weights="resnet18.safetensors"': '"resnet18", weights=None',
    "epochs=20": "epochs=1, image_size=32, coreset_size=0.5",
    '{"k": [3, 5, 10], "alpha": [0.25, 0.5], "m": [1.0, 2.0]}': '{"k": [3, 5]}',
}
# A cluster and MLflow, which are not here.
ELSEWHERE = ("tcp://scheduler:8786", "mlflow.")
# Other libraries than ours: tests/test_recipes.py runs them.
RECIPES = ROOT / "docs" / "recipes.md"


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A folder with images, and small networks by default."""
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    for folder, images in [("good", good_images(14)), ("new", defective_images(4))]:
        path = tmp_path / "parts" / folder
        path.mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(path / f"{i:02}.png")
    category = tmp_path / "mvtec_anomaly_detection" / "bottle"
    good, bad = good_images(8), defective_images(1)[0]
    for i in range(6):
        plant(category, f"train/good/{i}.png", pixels=good[i])
    plant(category, "test/good/0.png", pixels=good[7])
    plant(category, "test/hole/0.png", pixels=bad)
    mask = np.zeros(bad.shape[:2], dtype=np.uint8)
    mask[8:24, 26:42] = 255
    plant(category, "ground_truth/hole/0_mask.png", pixels=mask)
    visa = tmp_path / "VisA"
    rows = ["object,split,label,image,mask"]
    for part in ("train", "test"):
        image = f"pcb1/Data/Images/Normal/{part}.JPG"
        plant(visa, image)
        rows.append(f"pcb1,{part},normal,{image},")
    plant_text(visa, "split_csv/1cls.csv", *rows)
    for detector in (PatchCoreDetector, ReConPatchDetector):
        monkeypatch.setattr(detector.__init__, "__defaults__", ("skad_nano",))
        small = {**detector.__init__.__kwdefaults__, "image_size": 32, "coreset_size": 0.5}
        monkeypatch.setattr(detector.__init__, "__kwdefaults__", small)
    yield tmp_path
    plt.close("all")


def things_at_hand() -> dict:
    """What the pages take for granted: images, labels, a fitted detector, imports."""
    import matplotlib.pyplot as plt

    from skad import inspection, model_selection

    good, new = (sorted(str(p) for p in Path("parts", f).iterdir()) for f in ("good", "new"))
    mask = np.zeros((40, 48), dtype=bool)
    mask[8:24, 26:42] = True
    X, y = [*good, *new], np.repeat([1, -1], [len(good), len(new)])
    return {
        **vars(inspection),
        **vars(model_selection),
        "GridSearchCV": GridSearchCV,
        "PatchCoreDetector": PatchCoreDetector,
        "ReConPatchDetector": ReConPatchDetector,
        "ReContrastDetector": ReContrastDetector,
        "ScoreFusionDetector": ScoreFusionDetector,
        "StratifiedKFold": StratifiedKFold,
        "defective": new,
        "defective_paths": new,
        "det": make_detector().fit(good),
        "good_paths": good,
        "joblib": joblib,
        "new_paths": new,
        "np": np,
        "paths": X,
        "plt": plt,
        "skad": skad,
        "sklearn": sklearn,
        "skops": skops,
        "X_test": X,
        "y": y,
        "y_test": y,
    }


def masks_for(code: str, known: dict) -> list:
    """One a picture that is drawn, or one an image that is scored."""
    mask = np.zeros((40, 48), dtype=bool)
    mask[8:24, 26:42] = True
    only_new = [mask] * len(known["new_paths"])
    return only_new if "new_paths, masks" in code else [None] * 14 + only_new


@pytest.mark.filterwarnings("ignore:target_false_alarm_rate:UserWarning")
@pytest.mark.scripts
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda p: p.name)
def test_python_of_a_page_runs(page, workshop):
    if page.name == "deploy.md":
        need_libraries()
    known = things_at_hand()
    for code in blocks(page):
        if page == RECIPES or any(place in code for place in ELSEWHERE):
            compile(code, str(page), "exec")
            continue
        for said, smaller in SMALLER.items():
            code = code.replace(said, smaller)
        known["masks"] = masks_for(code, known)
        with sklearn.config_context():
            exec(compile(code, str(page), "exec"), known)
        if hasattr(known.get("search"), "cv_results_"):
            # Labels are sorted here, as users have them: no fold may lack a kind of image.
            assert np.isfinite(known["search"].cv_results_["mean_test_score"]).all()


def test_what_is_made_smaller_is_still_said():
    said = "".join("".join(blocks(page)) for page in PAGES)
    assert [text for text in SMALLER if text not in said] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    # Pages of the gallery and of the reference are made when the site is built.
    made = {"gallery/index.rst"}
    links = set(LINK.findall(page.read_text(encoding="utf-8"))) - made
    assert [link for link in sorted(links) if not (page.parent / link).exists()] == []


def test_promises_name_tests_that_there_are():
    """Every line of docs/faults.md is held by tests of the files that it names."""
    lines = [
        line
        for line in (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| promised")
    ]
    assert len(lines) > 30
    for line in lines:
        names = re.findall(r"`(tests/\S+\.py|test_\w+)`", line.rsplit("|", 2)[1])
        assert names
        assert names[0].startswith("tests/"), line
        for name in names:
            if name.startswith("tests/"):
                tests = set(
                    re.findall(r"def (test_\w+)", (ROOT / name).read_text(encoding="utf-8"))
                )
            else:
                assert name in tests, f"{name} of: {line}"


def test_every_page_is_in_a_table_of_contents():
    listed = set()
    pages = PAGES[len(TEXTS) :]
    for page in pages:
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            listed |= {line for line in tree.split("\n") if line and not line.startswith(":")}
    assert {page.stem for page in pages} - {"index"} <= listed


@pytest.mark.parametrize("module", PUBLIC)
def test_everything_public_is_in_the_reference(module):
    imported = importlib.import_module(module)
    own = getattr(imported, "__all__", None) or [
        name
        for name, value in vars(imported).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module
    ]
    reference = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
    section = reference.split(f".. currentmodule:: {module}\n")[1].split(".. currentmodule::")[0]
    words = set(re.findall(r"[A-Za-z]\w+", section))
    assert [name for name in own if name not in words and name != "__version__"] == []
