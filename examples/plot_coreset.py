"""
=====================================
The coreset: what does a bank keep?
=====================================

PatchCore remembers a small choice of the good patches, its coreset, and calls a patch anomalous that
is far from all of them. Here are the patches of good and of damaged tiles and the coreset, brought to
two dimensions.

Run as a script, it writes ``coreset.png`` into the current folder.
"""

# %%
# A bank of 1 % of the patches
# ----------------------------

import matplotlib.pyplot as plt
import numpy as np
from demo import cut_tiles, damage
from skimage import data

from skad import PatchCoreDetector
from skad.inspection import CoresetDisplay

rng = np.random.default_rng(0)
tiles = rng.permutation(cut_tiles(data.grass()))
train, unseen = tiles[:30], tiles[30:40]
damaged = [damage(tile, 1, rng)[0] for tile in unseen]
X = np.concatenate([train, damaged])
y = np.repeat([1, -1], [len(train), len(damaged)])

# %%
# Greedy and random choice
# ------------------------
#
# The greedy coreset spreads over all that good patches look like, rare ones included; a random one
# crowds where most patches are, and calls a rare good patch anomalous. Patches of damaged tiles are
# mostly good ones too: only those on the damage leave the cloud.

figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
for method, ax in zip(("greedy", "random"), axes, strict=True):
    detector = PatchCoreDetector(
        "skad_nano", image_size=128, coreset_size=0.01, coreset_method=method, random_state=0
    ).fit(train)
    CoresetDisplay.from_estimator(
        detector, X, y, max_patches=1000, random_state=0, name=method, ax=ax
    )
figure.savefig("coreset.png", dpi=64)

# %%
# Principal components keep a part of the distances only; the axes say how large a part. With umap-learn
# installed, ``reducer="umap"`` draws neighbourhoods instead, and any transformer of scikit-learn's,
# such as ``TSNE()``, can be passed as well.
