"""What a folder holds and its loader leaves out, or takes for something else: told with numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from skad._validation.warn import warn_user
from skad.datasets._bunch import GOOD, Sample
from skad.datasets._files import SUFFIXES, subfolders

# Folders in which a user expects every image to be seen.
_PLACES = ("train", "validation", "val", "test", "ground_truth")
_TRUTH = "ground_truth"
# Images to those who put them there; of the first ones some can be decoded, but no loader lists them.
# fmt: off
_OTHER_SUFFIXES = frozenset({
    ".gif", ".jfif", ".jpe", ".pgm", ".ppm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".jxl",
    ".heic", ".heif", ".avif", ".dib", ".pcx", ".exr", ".hdr",
    ".npy", ".npz", ".dcm", ".dicom", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw",
})
# Letters alone, in lower case.
_GOOD_IN_OTHER_WORDS = frozenset({
    "good", "goods", "ok", "okay", "oks", "normal", "normals", "fine", "pass", "passed", "perfect",
    "healthy", "clean", "intact", "undamaged",
    "flawless", "negative", "nominal", "accepted", "nodefect", "nodefects", "nondefect",
    "nondefective", "defectfree", "noanomaly",
    "nonanomalous", "goodpart", "goodparts", "okpart", "okparts",
    "gut", "gutteil", "gutteile", "io", "inordnung", "fehlerfrei", "bon", "bonne", "conforme",
    "bueno", "buena", "buono", "buona", "bom", "boa", "goed",
    "bra", "dobry", "dobre", "iyi",
})
# fmt: on
_TRUTH_IN_OTHER_WORDS = frozenset(
    {
        "groundtruth",
        "groundtruths",
        "truth",
        "truths",
        "gt",
        "gts",
        "mask",
        "masks",
        "label",
        "labels",
        "annotation",
        "annotations",
        "segmentation",
        "segmentations",
    }
)  # fmt: skip
_LIKE_A_MASK = re.compile(r"(?P<image>.+)[-_. ](mask|gt|label|seg|ground_?truth)", re.IGNORECASE)


def warn_of_left_out(root: Path, samples: Iterable[Sample], good: str) -> None:
    """Warn about images and masks of a category that were not used, and about strange names.

    Parameters
    ----------
    root : Path
        Of the category.
    samples : iterable of Sample
        What was found.
    good : str
        Name of the folders with good images.

    Warns
    -----
    UserWarning
        One for all: how many files, an example of each kind, and what to do.
    """
    samples = list(samples)
    used = {str(sample.image) for sample in samples}
    used |= {str(sample.mask) for sample in samples if sample.mask is not None}
    remarks = [
        *_of_names(samples, good),
        *_of_masks(root, samples),
        *_of_links(root, samples),
        *_of_files(root, list(_unused(root, used)), good),
    ]
    if remarks:
        warn_user(f"{os.fspath(root)!r}: " + " ".join(remarks))


def good_in_other_words(name: str, good: str) -> bool:
    """Whether a folder seems to hold good images, though it is not called as it ought to be.

    Parameters
    ----------
    name : str
        Of the folder.
    good : str
        As it ought to be called.

    Returns
    -------
    bool
    """
    return name != good and _letters(name) in _GOOD_IN_OTHER_WORDS


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]", "", name).casefold()


def _of_names(samples: list[Sample], good: str) -> Iterator[str]:
    """Folders that are called good in other words: their images count as defective."""
    kinds = [sample.kind for sample in samples if sample.kind != GOOD]
    for kind in dict.fromkeys(kinds):
        if good_in_other_words(kind, good):
            yield (
                f"Images in {f'test/{kind}'!r} that count as defective: {kinds.count(kind)}; good "
                f"images lie in 'test/{good}', rename the folder if they are."
            )


def _of_masks(root: Path, samples: list[Sample]) -> Iterator[str]:
    """Masks that are taken for images, are not looked for, or are absent."""
    known = {(sample.image.parent, sample.image.stem) for sample in samples}
    beside = [
        sample.image
        for sample in samples
        if (match := _LIKE_A_MASK.fullmatch(sample.image.stem))
        and (sample.image.parent, match["image"]) in known
    ]
    if beside:
        yield (
            f"Images that seem to be masks of those beside them: {len(beside)}, such as "
            f"{os.path.relpath(beside[0], root)!r}; masks lie in '{_TRUTH}/<defect>'."
        )
    if not (root / _TRUTH).is_dir():
        for folder in subfolders(root):
            masks = list(_looking_like_images(folder, frozenset()))
            if masks and _letters(folder.name) in _TRUTH_IN_OTHER_WORDS:
                yield (
                    f"Masks not used for the name of their folder: {len(masks)}, such as "
                    f"{os.path.relpath(masks[0], root)!r}; rename the folder to '{_TRUTH}'."
                )
    for kind in dict.fromkeys(sample.kind for sample in samples if sample.kind != GOOD):
        there = [s for s in samples if s.kind == kind and s.image not in beside]
        bare = [sample.image for sample in there if sample.mask is None]
        # Who marks only a few images does so on purpose.
        if 0 < len(bare) < len(there) / 2:
            yield (
                f"Images without a mask though most of {kind!r} have one: {len(bare)}, such as "
                f"{os.path.relpath(bare[0], root)!r}."
            )


def _of_links(root: Path, samples: list[Sample]) -> Iterator[str]:
    """Folders that are another one of the same data set."""
    first: dict[str, Path] = {}
    for folder in dict.fromkeys(sample.image.parent for sample in samples):
        other = first.setdefault(os.path.realpath(folder), folder)
        if other != folder:
            n = sum(sample.image.parent == folder for sample in samples)
            yield (
                f"Images that are there twice: {n}, in {os.path.relpath(folder, root)!r}, which is a "
                f"link to {os.path.relpath(other, root)!r} or the other way round; remove the link."
            )


def _of_files(root: Path, unused: list[str], good: str) -> Iterator[str]:
    """Files that nothing was made of, by the reason."""
    names = [os.path.relpath(file, root) for file in unused if os.path.isfile(file)]
    strange = [os.path.relpath(file, root) for file in unused if not os.path.isfile(file)]
    masks = [name for name in names if Path(name).parts[0] == _TRUTH]
    foreign = [name for name in names if name not in masks and _suffix(name) not in SUFFIXES]
    elsewhere = [name for name in names if name not in masks and name not in foreign]
    if masks:
        yield (
            f"Masks not used: {len(masks)}, such as {masks[0]!r}; the mask of "
            f"'test/<defect>/<image>.png' is '{_TRUTH}/<defect>/<image>_mask.png' or "
            f"'{_TRUTH}/<defect>/<image>.png'."
        )
    if strange:
        yield f"Pipes, devices or broken links not used: {len(strange)}, such as {strange[0]!r}."
    if foreign:
        suffixes = ", ".join(sorted({_suffix(name) for name in foreign}))
        yield (
            f"Images not used for their suffix ({suffixes}): {len(foreign)}, such as {foreign[0]!r}; "
            "convert them to PNG."
        )
    if elsewhere:
        yield (
            f"Images not used for their place: {len(elsewhere)}, such as {elsewhere[0]!r}; images lie "
            f"in 'train/{good}', 'test/{good}' and 'test/<defect>' themselves, not deeper."
        )


def _unused(root: Path, used: set[str]) -> Iterator[str]:
    """Files that look like images, and of which none was made; hidden ones left out."""
    for place in _PLACES:
        yield from _looking_like_images(root / place, used)


def _looking_like_images(place: Path, used: Collection[str]) -> Iterator[str]:
    for folder, inner, files in os.walk(place):
        # A folder may be the mask of an image, with all that lies in it.
        inner[:] = sorted(
            name
            for name in inner
            if not name.startswith(".") and os.path.join(folder, name) not in used
        )
        for name in sorted(files):
            file = os.path.join(folder, name)
            known = _suffix(name) in SUFFIXES or _suffix(name) in _OTHER_SUFFIXES
            if known and not name.startswith(".") and file not in used:
                yield file


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
