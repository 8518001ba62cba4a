"""Nearest neighbours and per-region overlap, computed as their definitions read."""

import numpy as np
from scipy.ndimage import label


def brute_force(queries, vectors, k, exclude=None):
    """Distances and row numbers; the lower number first where distances are equal."""
    away = np.asarray(queries, np.float64)[:, None] - np.asarray(vectors, np.float64)[None]
    distances = np.sqrt((away**2).sum(-1))
    if exclude is not None:
        distances[:, exclude] = np.inf
    ids = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, ids, 1), ids


def literal_aupro(masks, heatmaps, limit):
    """Threshold by threshold over all distinct values; pixels that are NaN are left out."""
    background, regions = [], []
    for mask, heatmap in zip(masks, heatmaps, strict=True):
        numbers, n = label(mask, structure=np.ones((3, 3)))
        seen = ~np.isnan(heatmap)
        background.append(heatmap[seen & (numbers == 0)])
        regions += [heatmap[seen & (numbers == i)] for i in range(1, n + 1)]
    background, regions = np.concatenate(background), [r for r in regions if len(r)]
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([background, *regions]))[::-1]:
        rates.append((background >= threshold).mean())
        overlaps.append(np.mean([(region >= threshold).mean() for region in regions]))
    area = 0.0
    for i in range(1, len(rates)):
        width = min(rates[i], limit) - min(rates[i - 1], limit)
        if width > 0:
            slope = (overlaps[i] - overlaps[i - 1]) / (rates[i] - rates[i - 1])
            area += width * (overlaps[i - 1] + slope * width / 2)
    return area / limit
