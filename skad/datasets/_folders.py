"""Data sets in the layout of MVTec AD: a folder a category, and in it a folder a part and a kind."""

from __future__ import annotations

import os
from pathlib import Path

from sklearn.utils import Bunch

from skad.datasets._bunch import GOOD, Sample, make_bunch
from skad.datasets._files import choose, images, subfolders
from skad.datasets._left_out import good_in_other_words, warn_of_left_out
from skad.datasets._source import Source

_CATEGORY = """\
{root}
  train/good/*.png                           good images to learn from
  test/good/*.png                            good images to test on
  test/<defect>/*.png                        defective images, one folder a kind of defect
  ground_truth/<defect>/<image>_mask.png     optional pixel masks"""
_CATEGORIES = """\
{root}
  <category>/train/good/*.png                good images to learn from
  <category>/test/good/*.png                 good images to test on
  <category>/test/<defect>/*.png             defective images, one folder a kind of defect
  <category>/ground_truth/<defect>/<image>_mask.png"""
FOLDER = Source("folder", "Images in MVTec layout", _CATEGORY)
MVTEC_AD = Source(
    "mvtec_ad",
    "MVTec AD",
    _CATEGORIES,
    "MVTec Software GmbH",
    "CC BY-NC-SA 4.0, not for commercial use",
    "https://www.mvtec.com/company/research/datasets/mvtec-ad",
)
MVTEC_LOCO = Source(
    "mvtec_loco",
    "MVTec LOCO AD",
    """\
{root}
  <category>/train/good/*.png                good images to learn from
  <category>/validation/good/*.png           good images to choose settings and thresholds with
  <category>/test/good/*.png                 good images to test on
  <category>/test/logical_anomalies/*.png
  <category>/test/structural_anomalies/*.png
  <category>/ground_truth/<defect>/<image>/*.png""",
    "MVTec Software GmbH",
    "CC BY-NC-SA 4.0, not for commercial use",
    "https://www.mvtec.com/company/research/datasets/mvtec-loco",
)
MPDD = Source(
    "mpdd",
    "MPDD",
    _CATEGORIES,
    "S. Jezek et al. (Brno University of Technology)",
    "none stated",
    "https://github.com/stepanje/MPDD",
)
BTAD = Source(
    "btad",
    "BTAD",
    """\
{root}
  <category>/train/ok/*                      good images to learn from
  <category>/test/ok/*                       good images to test on
  <category>/test/ko/*                       defective images
  <category>/ground_truth/ko/<image>.png     or .bmp""",
    "P. Mishra et al. (beanTech, University of Udine)",
    "CC BY-SA 4.0",
    "https://github.com/pankajmishra000/VT-ADL",
)


def load_folder(path: str | os.PathLike[str], category: str | None = None) -> Bunch:
    """Read local images in the layout of MVTec AD.

    Parameters
    ----------
    path : path-like
        Folder with ``train/good``, ``test/good``, ``test/<defect>`` and, optionally,
        ``ground_truth/<defect>/<image>_mask.png`` (or ``<image>.png``, or a folder ``<image>`` of
        several masks); or a folder of such folders.
    category : str, default=None
        Which of them; None: the only one.

    Returns
    -------
    sklearn.utils.Bunch
        ``X`` : list of str, paths of all images, training images first, in the order of kinds and
        names;
        ``y`` : ndarray of shape (n,), +1 good, -1 defective;
        ``masks`` : list of str or None, the ground truth of each image for :func:`read_mask` (None:
        good, or no ground truth);
        ``defects`` : list of str, the kind of each image ("good" for good ones);
        ``split`` : ndarray of shape (n,) of str, "train" or "test" (or "validation");
        ``X_train`` : list of str, the good training images;
        ``X_test``, ``y_test``, ``masks_test``, ``defects_test`` : the parts of the above to test on;
        ``category`` : str, for tables;
        ``DESCR`` : str, owner, licence and link.

    Raises
    ------
    FileNotFoundError
        If the folder, its training or its test images are missing; the message shows the layout.
    ValueError
        If `path` is a file, for a category that does not exist or is not said, or if a mask fits two
        images.

    Warns
    -----
    UserWarning
        If masks match no image, lie beside the images or in a folder of another name, or are there for
        most images of a kind but not for all; if images have other suffixes, lie elsewhere (in deeper
        folders, say), or are there twice by a link; or if a folder beside ``test/good`` seems to hold
        good images ("ok", "normal"): with their number, an example and the remedy.

    Examples
    --------
    >>> from skad.datasets import load_folder
    >>> data = load_folder("parts/bottle")  # doctest: +SKIP
    >>> det.fit(data.X_train).score(data.X_test, data.y_test)  # doctest: +SKIP
    """
    return load_layout(FOLDER, path, category)


def load_mvtec_ad(path: str | os.PathLike[str], category: str | None = None) -> Bunch:
    """Read a category of MVTec AD, in the official split.

    15 categories (bottle, cable, capsule, carpet, grid, hazelnut, leather, metal_nut, pill, screw, tile,
    toothbrush, transistor, wood, zipper) in the layout of :func:`load_folder`. Licence: CC BY-NC-SA 4.0,
    not for commercial use. Owner's page: https://www.mvtec.com/company/research/datasets/mvtec-ad

    Parameters
    ----------
    path : path-like
        The folder of the categories, or of one of them.
    category : str, default=None
        None: the only one.

    Returns
    -------
    sklearn.utils.Bunch
        As :func:`load_folder`.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_folder`.

    References
    ----------
    P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger, "The MVTec Anomaly Detection Dataset",
    IJCV 129, 2021.

    Examples
    --------
    >>> from skad.datasets import load_mvtec_ad
    >>> data = load_mvtec_ad("mvtec_anomaly_detection", "bottle")  # doctest: +SKIP
    >>> len(data.X_train), len(data.X_test)  # doctest: +SKIP
    (209, 83)
    """
    return load_layout(MVTEC_AD, path, category)


def load_mpdd(path: str | os.PathLike[str], category: str | None = None) -> Bunch:
    """Read a category of MPDD (metal parts), in the official split.

    Six categories (bracket_black, bracket_brown, bracket_white, connector, metal_plate, tubes) in the
    layout of :func:`load_folder`. Licence: none stated on the owner's page,
    https://github.com/stepanje/MPDD

    Parameters
    ----------
    path : path-like
        The folder of the categories, or of one of them.
    category : str, default=None
        None: the only one.

    Returns
    -------
    sklearn.utils.Bunch
        As :func:`load_folder`.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_folder`.

    References
    ----------
    S. Jezek, M. Jonak, R. Burget, P. Dvorak, M. Skotak, "Deep learning-based defect detection of metal
    parts: evaluating current methods in complex conditions", ICUMT 2021.

    Examples
    --------
    >>> from skad.datasets import load_mpdd
    >>> data = load_mpdd("MPDD", "bracket_black")  # doctest: +SKIP
    """
    return load_layout(MPDD, path, category)


def load_btad(path: str | os.PathLike[str], category: str | None = None) -> Bunch:
    """Read a category of BTAD (beanTech anomaly detection), in the official split.

    Three categories (01, 02, 03) with ``train/ok``, ``test/ok``, ``test/ko`` and ``ground_truth/ko``;
    masks are .png or .bmp. The kind of the defective images is "ko". Licence: CC BY-SA 4.0. Owner's
    page: https://github.com/pankajmishra000/VT-ADL

    Parameters
    ----------
    path : path-like
        The folder of the categories (``BTech_Dataset_transformed`` in the archive), or of one of them.
    category : str, default=None
        None: the only one.

    Returns
    -------
    sklearn.utils.Bunch
        As :func:`load_folder`.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_folder`.

    References
    ----------
    P. Mishra, R. Verk, D. Fornasier, C. Piciarelli, G. L. Foresti, "VT-ADL: A Vision Transformer Network
    for Image Anomaly Detection and Localization", ISIE 2021.

    Examples
    --------
    >>> from skad.datasets import load_btad
    >>> data = load_btad("BTech_Dataset_transformed", "01")  # doctest: +SKIP
    """
    return load_layout(BTAD, path, category, good="ok")


def load_mvtec_loco(
    path: str | os.PathLike[str], category: str | None = None, *, validation: bool = False
) -> Bunch:
    """Read a category of MVTec LOCO AD, in the official split.

    Five categories (breakfast_box, juice_bottle, pushpins, screw_bag, splicing_connectors) with
    ``train/good``, ``validation/good``, ``test/good``, ``test/logical_anomalies``,
    ``test/structural_anomalies`` and ``ground_truth/<kind>/<image>/*.png``. An image may have several
    masks; ``masks`` names their folder, and :func:`read_mask` gives their union. Licence: CC BY-NC-SA
    4.0, not for commercial use. Owner's page: https://www.mvtec.com/company/research/datasets/mvtec-loco

    Parameters
    ----------
    path : path-like
        The folder of the categories, or of one of them.
    category : str, default=None
        None: the only one.
    validation : bool, default=False
        True: the validation images, which are good, are training images like the others. False: they
        are in ``X`` with the split "validation", and in neither ``X_train`` nor ``X_test``.

    Returns
    -------
    sklearn.utils.Bunch
        As :func:`load_folder`.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_folder`.

    References
    ----------
    P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger, "Beyond Dents and Scratches: Logical
    Constraints in Unsupervised Anomaly Detection and Localization", IJCV 130, 2022.

    Examples
    --------
    >>> from skad.datasets import load_mvtec_loco
    >>> data = load_mvtec_loco("mvtec_loco_anomaly_detection", "pushpins")  # doctest: +SKIP
    """
    parts = {"train": "train", "validation": "train" if validation else "validation"}
    return load_layout(MVTEC_LOCO, path, category, parts=parts)


def load_layout(
    source: Source,
    path: str | os.PathLike[str],
    category: str | None,
    *,
    good: str = GOOD,
    parts: dict[str, str] | None = None,
) -> Bunch:
    """Read a category of a data set in this layout.

    Parameters
    ----------
    source : Source
    path : path-like
        A folder of categories, or a category.
    category : str or None
    good : str, default="good"
        Name of the folders with good images.
    parts : dict of str to str, default=None
        Folders with nothing but good images, and the splits that they stand for; None: "train" alone.

    Returns
    -------
    sklearn.utils.Bunch

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_folder`.
    """
    found = _categories(source, path)
    category = choose(category, list(found), path)
    root = found[category]
    samples = [
        Sample(file, GOOD, split)
        for part, split in (parts or {"train": "train"}).items()
        for file in images(root / part / good)
    ]
    for folder in subfolders(root / "test"):
        kind = GOOD if folder.name == good else folder.name
        truth = _truth(root / "ground_truth" / folder.name)
        found_here = [
            Sample(file, kind, "test", truth.get(f"{file.stem}_mask", truth.get(file.stem)))
            for file in images(folder)
        ]
        _check_claimed_once(found_here)
        samples += found_here
    for part, place in (("train", f"train/{good}"), ("test", "test")):
        if not any(sample.split == part for sample in samples):
            what = f"no images in {os.path.relpath(root / place, path)}"
            near = [f.name for f in subfolders(root / part) if good_in_other_words(f.name, good)]
            if near:
                what += f" (rename {part}/{near[0]} to {part}/{good} if it holds good images)"
            raise source.missing(path, what)
    warn_of_left_out(root, samples, good)
    return make_bunch(samples, category, source, path)


def layout_categories(source: Source, path: str | os.PathLike[str]) -> list[str]:
    """List the categories of a data set in this layout.

    Parameters
    ----------
    source : Source
    path : path-like
        A folder of categories, or a category.

    Returns
    -------
    list of str

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_folder`.
    """
    return list(_categories(source, path))


def _categories(source: Source, path: str | os.PathLike[str]) -> dict[str, Path]:
    root = source.folder(path)
    if _is_category(root):
        return {Path(os.path.abspath(root)).name: root}
    found = {folder.name: folder for folder in subfolders(root) if _is_category(folder)}
    if not found:
        raise source.missing(path, "no folder with train and test in it")
    return found


def _is_category(folder: Path) -> bool:
    return (folder / "train").is_dir() or (folder / "test").is_dir()


def _check_claimed_once(samples: list[Sample]) -> None:
    claimed: dict[Path, Path] = {}
    for sample in samples:
        if sample.mask is None or sample.kind == GOOD:
            continue
        other = claimed.setdefault(sample.mask, sample.image)
        if other != sample.image:
            raise ValueError(
                f"the mask {os.fspath(sample.mask)!r} fits two images, {other.name!r} and "
                f"{sample.image.name!r}: rename one of them, or take it away if it is a mask itself."
            )


def _truth(folder: Path) -> dict[str, Path]:
    """Masks of a kind by name: files, and folders with the several masks of one image."""
    several = {mask.name: mask for mask in subfolders(folder) if images(mask)}
    return several | {mask.stem: mask for mask in images(folder)}
