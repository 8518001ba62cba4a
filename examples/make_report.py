"""
====================================
A report: one file to send around
====================================

Fits a detector on good tiles of a photograph, scores other tiles, half of them damaged, and writes a
report: figures, histogram, the worst mistakes with their heat maps, parameters and versions. The report
is one self-contained file.

Run as a script, it writes ``report.html`` into the current folder.
"""

# %%
# A detector, and tiles to test it on
# -----------------------------------

import numpy as np
from demo import cut_tiles, damage
from skimage import data

from skad import PatchCoreDetector
from skad.inspection import report

rng = np.random.default_rng(0)
tiles = rng.permutation(cut_tiles(data.grass()))
train, good = tiles[:44], tiles[44:]
pairs = [damage(tile, i % 3, rng) for i, tile in enumerate(good)]
X = np.concatenate([good, [image for image, _ in pairs]])
y = np.repeat([1, -1], len(good))
masks = [*[None] * len(good), *[mask for _, mask in pairs]]

detector = PatchCoreDetector("skad_nano", image_size=96, coreset_size=0.05, random_state=0)
detector.fit(train)

# %%
# The report
# ----------
#
# Labels and masks are optional: without labels, the most anomalous images are shown.

path = report(detector, X, y, masks, path="report.html", title="Grass, tiles with damage")
print(f"report: {path}")
