"""
=============================================
Whitening: which directions do distances see?
=============================================

The patches of good tiles fill a few directions of the feature space; there the distances between
patches are made. Whitening lets the other directions, in which defects may show, count more.

Run as a script, it writes ``spectrum.png`` into the current folder.
"""

# %%
# What the covariance says
# ------------------------
#
# Each curve is the variance of good patches along the principal directions of a layer. The legend says
# how many directions count in effect.

import numpy as np
from demo import cut_tiles
from skimage import data

from skad import PatchCoreDetector
from skad.inspection import SpectrumDisplay

tiles = np.random.default_rng(0).permutation(cut_tiles(data.grass()))
detector = PatchCoreDetector("skad_nano", image_size=128, random_state=0).fit(tiles[:20])
display = SpectrumDisplay.from_estimator(detector)
display.figure_.savefig("spectrum.png", dpi=90)

# %%
# ``whitening=0.25`` is the default. ``whitening=0`` leaves distances as they are; ``whitening=0.5``
# gives every direction of a layer nearly the same weight.
