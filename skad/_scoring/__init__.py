"""From patches to scores, maps and thresholds.

- `plain`: scores and maps by the distances to a memory bank, as the papers write them;
- `fast`: the same numbers in less time, with `lazy_scores`, `several` and `gpu`; can be deleted;
- `heatmaps`: from a grid of patch scores to a smooth map;
- `thresholds`: from scores of good images to a threshold, and how far rounding moves it;
- `calibration`: which scores of earlier images still count after `partial_fit`;
- `results`: what scoring gives.
"""
