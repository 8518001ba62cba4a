"""Warnings about files that a loader does not use, or may take for something else."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from skad._common.image_files import SUFFIXES, subfolders, suffix_of
from skad._common.warn import warn_user
from skad.datasets._layout import GOOD, Sample

_TRUTH = "ground_truth"
# Folders in which a user expects every image to be read.
_PLACES = ("train", "validation", "val", "test", _TRUTH)
# fmt: off
# Suffixes of images that no loader lists, though Pillow can read some of them.
_OTHER_SUFFIXES = frozenset({
    ".gif", ".jfif", ".jpe", ".pgm", ".ppm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".jxl",
    ".heic", ".heif", ".avif", ".dib", ".pcx", ".exr", ".hdr",
    ".npy", ".npz", ".dcm", ".dicom", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw",
})
# Names of folders: letters alone, in lower case.
_WORDS_FOR_GOOD = frozenset({
    "good", "goods", "ok", "okay", "oks", "normal", "normals", "fine", "pass", "passed", "perfect",
    "healthy", "clean", "intact", "undamaged",
    "flawless", "negative", "nominal", "accepted", "nodefect", "nodefects", "nondefect",
    "nondefective", "defectfree", "noanomaly",
    "nonanomalous", "goodpart", "goodparts", "okpart", "okparts",
    "gut", "gutteil", "gutteile", "io", "inordnung", "fehlerfrei", "bon", "bonne", "conforme",
    "bueno", "buena", "buono", "buona", "bom", "boa", "goed",
    "bra", "dobry", "dobre", "iyi",
})
_WORDS_FOR_TRUTH = frozenset({
    "groundtruth", "groundtruths", "truth", "truths", "gt", "gts", "mask", "masks", "label", "labels",
    "annotation", "annotations", "segmentation", "segmentations",
})
# fmt: on
_LIKE_A_MASK = re.compile(r"(?P<image>.+)[-_. ](mask|gt|label|seg|ground_?truth)", re.IGNORECASE)


def warn_of_unused(root: Path, samples: Iterable[Sample], good: str) -> None:
    """Warn once about images and masks of a category that are not used, and about strange names.

    Parameters
    ----------
    root : Path
        Of the category.
    samples : iterable of Sample
        What was found.
    good : str
        Name of the folders with good images.
    """
    samples = list(samples)
    used = {str(sample.image) for sample in samples}
    used |= {str(sample.mask) for sample in samples if sample.mask is not None}
    seeming_masks = _seeming_masks(samples)
    remarks = [
        *_good_under_other_names(samples, good),
        *_masks_beside_images(root, seeming_masks),
        *_truth_under_other_names(root),
        *_few_without_masks(root, samples, seeming_masks),
        *_links(root, samples),
        *_unused_files(root, used, good),
    ]
    if remarks:
        warn_user(f"{os.fspath(root)!r}: " + " ".join(remarks))


def of_other_suffixes(names: Iterable[str]) -> list[str]:
    """Say which files are images of formats that no loader lists; empty if there are none."""
    foreign = [name for name in names if suffix_of(name) in _OTHER_SUFFIXES]
    if not foreign:
        return []
    suffixes = ", ".join(sorted({suffix_of(name) for name in foreign}))
    return [
        f"Images not used because of their suffix ({suffixes}): {len(foreign)}, such as "
        f"{foreign[0]!r}; convert them to PNG."
    ]


def means_good(name: str, good: str) -> bool:
    """Whether a folder of another name than `good` seems to hold good images."""
    return name != good and _letters(name) in _WORDS_FOR_GOOD


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]", "", name).casefold()


def _good_under_other_names(samples: list[Sample], good: str) -> Iterator[str]:
    kinds = [sample.kind for sample in samples if sample.kind != GOOD]
    for kind in dict.fromkeys(kinds):
        if means_good(kind, good):
            yield (
                f"Images in {f'test/{kind}'!r} that count as defective: {kinds.count(kind)}; if they "
                f"are good, rename the folder to 'test/{good}'."
            )


def _seeming_masks(samples: list[Sample]) -> list[Path]:
    """Find images that are called like an image beside them, with an ending such as "_mask"."""
    known = {(sample.image.parent, sample.image.stem) for sample in samples}
    return [
        sample.image
        for sample in samples
        if (match := _LIKE_A_MASK.fullmatch(sample.image.stem))
        and (sample.image.parent, match["image"]) in known
    ]


def _masks_beside_images(root: Path, seeming_masks: list[Path]) -> Iterator[str]:
    if seeming_masks:
        yield (
            f"Images that seem to be masks of the images beside them: {len(seeming_masks)}, such as "
            f"{os.path.relpath(seeming_masks[0], root)!r}; move them to '{_TRUTH}/<defect>'."
        )


def _truth_under_other_names(root: Path) -> Iterator[str]:
    if (root / _TRUTH).is_dir():
        return
    for folder in subfolders(root):
        masks = list(_looking_like_images(folder, frozenset()))
        if masks and _letters(folder.name) in _WORDS_FOR_TRUTH:
            yield (
                f"Masks not used because of the name of their folder: {len(masks)}, such as "
                f"{os.path.relpath(masks[0], root)!r}; rename the folder to '{_TRUTH}'."
            )


def _few_without_masks(
    root: Path, samples: list[Sample], seeming_masks: Collection[Path]
) -> Iterator[str]:
    """Find kinds of which few images have no mask; who marks only a few does so on purpose."""
    no_images = set(seeming_masks)
    for kind in dict.fromkeys(sample.kind for sample in samples if sample.kind != GOOD):
        found = [s for s in samples if s.kind == kind and s.image not in no_images]
        without = [sample.image for sample in found if sample.mask is None]
        if 0 < len(without) < len(found) / 2:
            yield (
                f"Images without a mask though most of {kind!r} have one: {len(without)}, such as "
                f"{os.path.relpath(without[0], root)!r}."
            )


def _links(root: Path, samples: list[Sample]) -> Iterator[str]:
    """Find folders that are the same folder under two names."""
    first: dict[str, Path] = {}
    for folder in dict.fromkeys(sample.image.parent for sample in samples):
        other = first.setdefault(os.path.realpath(folder), folder)
        if other != folder:
            n = sum(sample.image.parent == folder for sample in samples)
            yield (
                f"Images found twice: {n}, since {os.path.relpath(folder, root)!r} and "
                f"{os.path.relpath(other, root)!r} are the same folder; remove the link."
            )


def _unused_files(root: Path, used: Collection[str], good: str) -> Iterator[str]:
    """Find files that look like images and are not used, and say why they are not."""
    unused = [file for place in _PLACES for file in _looking_like_images(root / place, used)]
    names = [os.path.relpath(file, root) for file in unused if os.path.isfile(file)]
    no_files = [os.path.relpath(file, root) for file in unused if not os.path.isfile(file)]
    masks = [name for name in names if Path(name).parts[0] == _TRUTH]
    others = [name for name in names if Path(name).parts[0] != _TRUTH]
    elsewhere = [name for name in others if suffix_of(name) in SUFFIXES]
    if masks:
        yield (
            f"Masks not used: {len(masks)}, such as {masks[0]!r}; the mask of "
            f"'test/<defect>/<image>.png' must be '{_TRUTH}/<defect>/<image>_mask.png' or "
            f"'{_TRUTH}/<defect>/<image>.png'."
        )
    if no_files:
        yield f"Pipes, devices or broken links not used: {len(no_files)}, such as {no_files[0]!r}."
    yield from of_other_suffixes(others)
    if elsewhere:
        yield (
            f"Images not used because of their place: {len(elsewhere)}, such as {elsewhere[0]!r}; move "
            f"them to 'train/{good}', 'test/{good}' or 'test/<defect>', where subfolders are not read."
        )


def _looking_like_images(place: Path, used: Collection[str]) -> Iterator[str]:
    """Walk through the unused files of a folder, except hidden ones."""
    for folder, inner, files in os.walk(place):
        # A folder may be the mask of an image, with all that lies in it.
        inner[:] = sorted(
            name
            for name in inner
            if not name.startswith(".") and os.path.join(folder, name) not in used
        )
        for name in sorted(files):
            file = os.path.join(folder, name)
            known = suffix_of(name) in SUFFIXES or suffix_of(name) in _OTHER_SUFFIXES
            if known and not name.startswith(".") and file not in used:
                yield file
