"""One function per data set. What all their docstrings share is in ``_docstrings.py``."""

from __future__ import annotations

from sklearn.utils import Bunch

from skad.datasets._docstrings import documented
from skad.datasets._files import PathLike
from skad.datasets._registry import DATASETS


@documented(DATASETS["folder"])
def load_folder(path: PathLike, category: str | None = None) -> Bunch:
    """Read images of your own, in the layout of MVTec AD."""
    return DATASETS["folder"].load(path, category)


@documented(DATASETS["mvtec_ad"])
def load_mvtec_ad(path: PathLike, category: str | None = None) -> Bunch:
    """Read a category of MVTec AD, in the official split."""
    return DATASETS["mvtec_ad"].load(path, category)


@documented(DATASETS["mvtec_loco"])
def load_mvtec_loco(
    path: PathLike, category: str | None = None, *, validation: bool = False
) -> Bunch:
    """Read a category of MVTec LOCO AD, in the official split.

    The kinds of defects are "logical_anomalies" and "structural_anomalies". An image may have several
    masks; ``masks`` names their folder, and :func:`read_mask` returns their union.

    Parameters
    ----------
    validation : bool, default=False
        True: the validation images, which are good, are training images like the others. False: they
        are in ``X`` with the split "validation", and in neither ``X_train`` nor ``X_test``.
    """
    return DATASETS["mvtec_loco"].load(path, category, validation=validation)


@documented(DATASETS["visa"])
def load_visa(path: PathLike, category: str | None = None) -> Bunch:
    """Read a category of VisA, in the official one-class split.

    Reads the archive as it is, split as ``split_csv/1cls.csv`` says (images in the order of the table,
    defects of the kind "anomaly"), or the folders that the owner's ``prepare_data.py`` makes of it
    (defects of the kind "bad"). Masks of the archive look black, since they number the kinds of
    defects: :func:`read_mask` takes every value but 0 for a defect.
    """
    return DATASETS["visa"].load(path, category)


@documented(DATASETS["btad"])
def load_btad(path: PathLike, category: str | None = None) -> Bunch:
    """Read a category of BTAD (beanTech anomaly detection), in the official split.

    Defects are of the kind "ko".
    """
    return DATASETS["btad"].load(path, category)


@documented(DATASETS["mpdd"])
def load_mpdd(path: PathLike, category: str | None = None) -> Bunch:
    """Read a category of MPDD (metal parts), in the official split."""
    return DATASETS["mpdd"].load(path, category)


@documented(DATASETS["magnetic_tile"])
def load_magnetic_tile(path: PathLike, *, test_size: float = 0.2, random_state: int = 0) -> Bunch:
    """Read the magnetic tiles of Huang et al., in a split of our own.

    The kinds of defects are "blowhole", "break", "crack", "fray" and "uneven".

    There is no official one-class split: a fraction of the good tiles is drawn for the test, and all
    defective images are test images. A tile was photographed several times under different exposures.
    File names (``exp<exposure>_num_<frame>``) count the frames, and images within 300 frames of each
    other stay in one split. Results of papers that draw single images are not comparable.

    Parameters
    ----------
    test_size : float or int, default=0.2
        Fraction or number of the good tiles to test on.
    random_state : int, default=0
        Seed of the split.
    """
    return DATASETS["magnetic_tile"].load(path, test_size=test_size, random_state=random_state)


@documented(DATASETS["kolektor_sdd"])
def load_kolektor_sdd(path: PathLike, *, test_size: float = 0.5, random_state: int = 0) -> Bunch:
    """Read KolektorSDD (surfaces of commutators), in a split of our own.

    An image is good if its mask is all zero, else it is of the kind "defect". All masks are read for
    this, which takes seconds.

    There is no official one-class split: a fraction of the commutators is drawn for the test, so that
    no commutator is in both splits. Defective images of the others have the split "train", and are in
    neither ``X_train`` nor ``X_test``.

    Parameters
    ----------
    test_size : float or int, default=0.5
        Fraction or number of the commutators to test on.
    random_state : int, default=0
        Seed of the split.
    """
    return DATASETS["kolektor_sdd"].load(path, test_size=test_size, random_state=random_state)


@documented(DATASETS["kolektor_sdd2"])
def load_kolektor_sdd2(path: PathLike) -> Bunch:
    """Read KolektorSDD2 (surfaces of production items), in the official split.

    An image is good if its mask is all zero, else it is of the kind "defect". All masks are read for
    this, which takes seconds. Defective training images have the split "train", and are in neither
    ``X_train`` nor ``X_test``.
    """
    return DATASETS["kolektor_sdd2"].load(path)


@documented(DATASETS["aptos"])
def load_aptos(path: PathLike, *, n_train: int = 1000, random_state: int = 1) -> Bunch:
    """Read APTOS 2019 (photographs of the retina), split as in the ReContrast paper.

    Reads the training images of the competition; its test images have no labels. Grade 0 is good; 1 to
    4 are the kinds "mild", "moderate", "severe" and "proliferative". There are no masks.

    The good images are shuffled as in the code of ReContrast: by Python's generator, seeded with 1, in
    the order of the table. The first 1,000 are training images, all others are test images: for the
    complete table these are the 2,662 test images of the paper. The paper crops its images to the disc
    of the eye and shrinks them to 512 pixels, which is not done here. For that, run the paper's
    ``prepare_aptos.py`` and pass the folder that it writes.

    Parameters
    ----------
    n_train : int, default=1000
        Number of good training images. Prepared folders are split already.
    random_state : int, default=1
        Seed of the shuffle.
    """
    return DATASETS["aptos"].load(path, n_train=n_train, random_state=random_state)


@documented(DATASETS["oct2017"])
def load_oct2017(path: PathLike) -> Bunch:
    """Read OCT2017 (optical coherence tomography of the retina), in the official split.

    NORMAL is good; CNV, DME and DRUSEN are the kinds of defects, without masks. Defective training
    images, if there are any, have the split "train" and are not in ``X_train``. Other folders are not
    read. The ReContrast paper trains on 26,315 images and tests on 1,000; other versions of the data
    set have other numbers.
    """
    return DATASETS["oct2017"].load(path)


@documented(DATASETS["isic2018"])
def load_isic2018(path: PathLike) -> Bunch:
    """Read ISIC 2018, task 3 (skin lesions), split as in the ReContrast paper.

    Nevi (NV) are good, which makes this a one-class problem rather than a search for defects; MEL, BCC,
    AKIEC, BKL, DF and VASC are the other kinds, without masks. The 6,705 nevi of the official training
    part are the training images (its other images have the split "train" and are not in ``X_train``),
    and the 193 images of the official validation part are the test images. Reads the four archives
    "Training Data", "Training Ground Truth", "Validation Data" and "Validation Ground Truth", unpacked
    side by side (images in the order of the tables), or the folders that the paper's
    ``prepare_isic2018.py`` writes.
    """
    return DATASETS["isic2018"].load(path)
