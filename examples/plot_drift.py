"""
===============================================
Drift: do new images look like those of before?
===============================================

A detector is fitted on good tiles of a photograph of gravel. Then a line produces: good tiles, now and
then a damaged one, and after a while the lamp gets too bright. When can we know?

Run as a script, it writes ``drift.png`` into the current folder.
"""

# %%
# A line with a lamp that gets brighter
# -------------------------------------
#
# From the 75th tile on, each tile is about one percent brighter than the one before. Every fiftieth
# tile is damaged.

import numpy as np
from demo import TILE, damage
from skimage import data

from skad import PatchCoreDetector
from skad.inspection import DriftDisplay

rng = np.random.default_rng(0)
gravel = data.gravel()


def cut(n):
    """Cut tiles at random places of the photograph."""
    places = rng.integers(0, len(gravel) - TILE, (n, 2))
    return [gravel[row : row + TILE, column : column + TILE] for row, column in places]


train, line = cut(60), cut(150)
for i in range(0, 150, 50):
    line[i], _ = damage(line[i], i % 3, rng)
light = np.maximum(1, 1 + 0.01 * (np.arange(150) - 75))
line = [np.minimum(255, tile * lit).astype(np.uint8) for tile, lit in zip(line, light, strict=True)]

# %%
# Scores, and the evidence of drift
# ---------------------------------
#
# Each tile is compared with the calibration scores and with all tiles before it. As long as nothing
# drifts, the chance that the evidence *ever* reaches 20 is at most 5 %, however long the line runs. All
# tiles count here, since few are damaged; with more defects, let only those count that are called
# good (``count="good"``, the default).

detector = PatchCoreDetector(
    "skad_nano", image_size=64, coreset_size=0.1, random_state=0
)  # fmt: skip
display = DriftDisplay.from_estimator(
    detector.fit(train), line, count="all", name="a lamp gets brighter from tile 75 on"
)
print(f"alarm at tile {display.monitor.alarm_at_}")
display.figure_.savefig("drift.png", dpi=72)
