"""Heat maps and masks for tests of pixel metrics and of their pictures."""

import numpy as np


def random_maps(n=6, shape=(40, 50), seed=0, scale=1.0, shift=0.0):
    """Maps in which defects stand out a little, with NaN at the rim; two regions per image."""
    rng = np.random.default_rng(seed)
    masks, maps = np.zeros((n, *shape), dtype=np.uint8), rng.normal(size=(n, *shape))
    masks[:, 5:12, 5:9], masks[1:, 25:30, 30:48] = 1, 255
    maps = scale * (maps + 1.2 * (masks > 0)) + shift
    maps[:, :, -3:] = np.nan
    return masks, maps.astype(np.float32)
