"""
=====================================================
Scores: how far are good and defective images apart?
=====================================================

Two detectors are fitted on good tiles of a photograph of gravel; one sees fine patches, the other
coarse ones. How well do their scores tell damage, and what does the threshold make of it?

Run as a script, it writes ``scores.png`` into the current folder.
"""

# %%
# Good and damaged tiles
# ----------------------

import matplotlib.pyplot as plt
import numpy as np
from demo import cut_tiles, damage
from skimage import data

from skad import PatchCoreDetector
from skad.inspection import ScoreHistogramDisplay

rng = np.random.default_rng(0)
tiles = rng.permutation(cut_tiles(data.gravel()))
train, good = tiles[:40], tiles[40:]
X = np.concatenate([good, [damage(tile, i % 3, rng)[0] for i, tile in enumerate(good)]])
y = np.repeat([1, -1], len(good))  # +1 good, -1 defective

# %%
# Two detectors side by side
# --------------------------
#
# Anomaly scores grow to the right, as in the papers. The threshold comes from good tiles alone: one
# in twenty may lie beyond it (``target_false_alarm_rate=0.05``).
#
# d' is the distance of the two means in standard deviations. It falls where defects differ among
# themselves, which does no harm: the fine detector has the lower d', yet its histograms touch less.
# Look at the overlap as well.

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for name, layers, ax in zip(("fine", "coarse"), ((1, 2), (2, 3)), axes, strict=True):
    detector = PatchCoreDetector(
        "skad_nano", layers=layers, image_size=96, coreset_size=0.02, random_state=0
    ).fit(train)
    display = ScoreHistogramDisplay.from_estimator(detector, X, y, name=name, ax=ax)
    print(f"{name}: d' = {display.d_prime:.2f}")
figure.savefig("scores.png", dpi=72)
