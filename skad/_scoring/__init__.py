"""From patches to scores, maps and thresholds.

- `plain`: scores and maps by the distances to a memory bank, as the papers write them;
- `fast`: the same numbers in less time, with `lazy_scores` and `gpu`; can be deleted;
- `heatmaps`: from a grid of patch scores to a smooth map;
- `thresholds`: from scores of good images to a threshold, and how far rounding moves it;
- `calibration`: which scores of earlier images still count after `partial_fit`;
- `results`: what scoring gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skad._torch.plain import is_plain_mode

if TYPE_CHECKING:
    from skad._scoring.plain import Scorer


def scorer_class() -> type[Scorer]:
    """Return what scores: in plain mode the plain scorer, else the fast one."""
    if is_plain_mode():
        from skad._scoring.plain import Scorer

        return Scorer
    from skad._scoring.fast import FastScorer

    return FastScorer
