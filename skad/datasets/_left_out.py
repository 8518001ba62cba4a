"""What a folder holds and its loader leaves out, or takes for something else: told with numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from skad._warn import warn_user
from skad.datasets._bunch import GOOD, Sample
from skad.datasets._files import SUFFIXES

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
    remarks = [*_of_names(samples, good), *_of_files(root, list(_unused(root, used)), good)]
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
    word = re.sub(r"[\W\d_]", "", name).casefold()
    return name != good and word in _GOOD_IN_OTHER_WORDS


def _of_names(samples: list[Sample], good: str) -> Iterator[str]:
    """Folders that are called good in other words: their images count as defective."""
    kinds = [sample.kind for sample in samples if sample.kind != GOOD]
    for kind in dict.fromkeys(kinds):
        if good_in_other_words(kind, good):
            yield (
                f"Images in {f'test/{kind}'!r} that count as defective: {kinds.count(kind)}; good "
                f"images lie in 'test/{good}', rename the folder if they are."
            )


def _of_files(root: Path, unused: list[str], good: str) -> Iterator[str]:
    """Files that nothing was made of, by the reason."""
    names = [os.path.relpath(file, root) for file in unused]
    masks = [name for name in names if Path(name).parts[0] == _TRUTH]
    foreign = [name for name in names if name not in masks and _suffix(name) not in SUFFIXES]
    elsewhere = [name for name in names if name not in masks and name not in foreign]
    if masks:
        yield (
            f"Masks not used: {len(masks)}, such as {masks[0]!r}; the mask of "
            f"'test/<defect>/<image>.png' is '{_TRUTH}/<defect>/<image>_mask.png' or "
            f"'{_TRUTH}/<defect>/<image>.png'."
        )
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
        for folder, inner, files in os.walk(root / place):
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
