"""
=======================================
Tiles: large photographs, small defects
=======================================

A network that sees a photograph of 2,000 pixels on a canvas of 320 does not see a scratch of three. With
``tiles`` it looks at the photograph piece by piece, at full resolution, and the pieces make one map
without seams. Beside it, a detector that sees the whole keeps an eye on what only the whole shows.

Run as a script, it writes ``tiles.png`` into the current folder.
"""

# %%
# Photographs of different sizes
# ------------------------------
#
# Plates of brushed metal, of several heights and widths. Of the last six, three have a fine scratch, and
# three are brushed unevenly: one half is a little brighter, which no small piece of the plate tells from
# its usual shades.

import numpy as np
from scipy.ndimage import gaussian_filter

from skad import PatchCoreDetector, ScoreFusionDetector
from skad.inspection import HeatmapDisplay

rng = np.random.default_rng(0)


def plate():
    """Make a plate of a size, and a shade, of its own."""
    height, width = rng.integers(300, 420, size=2)
    brushed = gaussian_filter(rng.normal(size=(height, width)), (0.7, 12))
    grey = rng.uniform(110, 150) + 14 * brushed / brushed.std()
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def scratched(image):
    """Draw a short line across the brush marks, one pixel wide."""
    image, middle = image.copy(), image.shape[1] // 2
    for row in range(100, 124):
        image[row, middle + row // 4] = 215
    return image


def uneven(image):
    """Brighten one half, with a soft edge."""
    rows = np.arange(len(image))[:, None, None]
    return (image + 60 / (1 + np.exp((len(image) / 2 - rows) / 25))).clip(0, 255).astype(np.uint8)


plates = [plate() for _ in range(36)]
good, new = plates[:26], plates[26:30]
scratches = [scratched(image) for image in plates[30:33]]
halves = [uneven(image) for image in plates[33:]]

# %%
# The whole, its parts, and both
# ------------------------------
#
# ``tiles="native"`` leaves images as large as they are: each has as many tiles as its size asks for.
# ``tiles=(2, 3)`` would bring all of them to one canvas of two rows of three tiles. Metal is alike
# everywhere: 500 patches say enough of it.

whole = PatchCoreDetector("skad_nano", image_size=64, random_state=0)
parts = PatchCoreDetector(
    "skad_nano", image_size=192, tiles="native", coreset_size=500, random_state=0
)
both = ScoreFusionDetector([("whole", whole), ("parts", parts)])
for name, detector in (("whole", whole), ("parts", parts), ("both", both)):
    detector.fit(good)
    called = [(detector.predict(images) == -1).sum() for images in (new, scratches, halves)]
    print(f"{name}: {called[0]} of 4 good, {called[1]} of 3 scratches, {called[2]} of 3 uneven")

display = HeatmapDisplay.from_estimator(parts, scratches[:1], titles=["scratch"], seams=True)
display.figure_.savefig("tiles.png", dpi=68)

# %%
# Dashed lines are where tiles meet. Each is computed with a margin of what lies around it, which is cut
# off, so that nothing is to be seen there.
