"""
==============================================
Region of interest: what moves beside the part
==============================================

A camera sees more than the part: a conveyor belt, a clamp, a hand. What changes there is no defect. Give
the detector a region of interest, and nothing outside of it changes a score.

Run as a script, it writes ``region_of_interest.png`` into the current folder.
"""

# %%
# Parts on a changing background
# ------------------------------
#
# Discs of brick lie at slightly different places on a belt whose brightness changes. Of the last six
# images, three have a scratch and three a bright object beside the part.

import numpy as np
from demo import cut_tiles
from scipy.ndimage import binary_fill_holes
from skimage import data
from skimage.filters import threshold_otsu
from skimage.measure import label

from skad import PatchCoreDetector
from skad.inspection import HeatmapDisplay

rng = np.random.default_rng(0)


def photograph(texture):
    """Lay a disc of a texture on the belt."""
    size = len(texture)
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2 - rng.uniform(-4, 4, (2, 1, 1))
    on_part = np.hypot(rows, columns) < 0.33 * size
    belt = rng.integers(10, 40) + rng.normal(0, 3, (size, size))
    image = np.where(on_part, 100 + 0.6 * texture, belt)
    return np.repeat(image.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


tiles = [tile if tile.ndim == 2 else tile[:, :, 0] for tile in cut_tiles(data.brick())]
parts = [photograph(tile) for tile in rng.permutation(np.array(tiles))]
good, scratched, visited = parts[:-6], parts[-6:-3], parts[-3:]
for image in scratched:
    size = len(image)
    image[size // 2 - 1 : size // 2 + 2, int(0.4 * size) : int(0.6 * size)] = 20
for image in visited:
    image[1:8, 1:14] = 200

# %%
# A mask of each image
# --------------------
#
# For a part that never moves, ``roi`` is one mask, or the path of one. Here it is a function: the part
# is what is brighter than the belt. Its holes are filled: a dark defect would be one, and never be seen.
# A detector is pickled, so the function must be one of a module or script.


def part_of(image):
    """Find the bright part in the middle of an image."""
    grey = image.mean(axis=2)
    numbers = label(grey > threshold_otsu(grey))
    rows, columns = numbers.shape
    return binary_fill_holes(numbers == numbers[rows // 2 - 8, columns // 2])


for name, roi in (("without", None), ("with", part_of)):
    detector = PatchCoreDetector("skad_nano", image_size=128, roi=roi, random_state=0).fit(good)
    called = [f"{(detector.predict(images) == -1).sum()} of 3" for images in (scratched, visited)]
    print(f"{name} a region: called defective {called[0]} scratched, {called[1]} visited")

display = HeatmapDisplay.from_estimator(
    detector, [scratched[0], visited[0]], titles=["scratched", "visited"]
)
display.figure_.savefig("region_of_interest.png", dpi=90)

# %%
# The dotted line is the edge of the region: the part, which the function has found in each image.
