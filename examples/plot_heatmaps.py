"""
==========================================
Heat maps: where does an image stand out?
==========================================

A detector is fitted on good tiles of a photograph of bricks. Tiles that it has not seen are damaged
by a scratch, a foreign body or a hole, and drawn with their heat maps. The photograph comes with
scikit-image and the backbone with skad: nothing is downloaded.

Run as a script, it writes ``heatmaps.png`` and ``pixel-curves.png`` into the current folder.
"""

# %%
# Good tiles to learn from, others to damage
# ------------------------------------------
#
# ``damage`` returns a damaged copy and the mask of what it has changed.

import matplotlib.pyplot as plt
import numpy as np
from demo import cut_tiles, damage
from skimage import data

from skad import PatchCoreDetector
from skad.inspection import HeatmapDisplay, PixelPrecisionRecallDisplay, PixelRocDisplay

rng = np.random.default_rng(0)
tiles = rng.permutation(cut_tiles(data.brick()))
train, unseen = tiles[:40], tiles[40:]
pairs = [damage(tile, i % 3, rng) for i, tile in enumerate(unseen)]
damaged = np.stack([image for image, _ in pairs])
masks = [mask for _, mask in pairs]

detector = PatchCoreDetector("skad_nano", image_size=96, coreset_size=0.1, random_state=0)
detector.fit(train)

# %%
# Image, heat map, outline
# ------------------------
#
# Green is what lies above ``heatmap_threshold_``, set from good tiles alone. Orange is where the
# damage really is, the star the most anomalous pixel. All heat maps share one colour scale; the green
# line on it is the threshold. The last row is a good tile.

shown = np.concatenate([damaged[[0, 2]], unseen[:1]])
display = HeatmapDisplay.from_estimator(detector, shown, masks=[masks[0], masks[2], None])
display.figure_.savefig("heatmaps.png", dpi=68)
display

# %%
# How good are all maps together?
# -------------------------------
#
# Two curves over the pixels of all tiles, drawn by scikit-learn's own displays. Few pixels are
# defective, so that precision and recall tell more than the ROC curve.

X, truth = np.concatenate([unseen, damaged]), [*[None] * len(unseen), *masks]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
PixelRocDisplay.from_estimator(detector, X, truth, ax=left)
PixelPrecisionRecallDisplay.from_estimator(detector, X, truth, ax=right)
figure.savefig("pixel-curves.png", dpi=72)
