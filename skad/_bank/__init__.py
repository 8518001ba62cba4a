"""The memory of a detector: which vectors to keep, and how to find the nearest of them.

Knows tensors and arrays, nothing of estimators or images.

- `coreset`: few vectors that cover all (greedy k-centre);
- `selection`: the rules that choose a bank's vectors, at once or as good images come;
- `search`: exact nearest neighbours in torch, others through faiss;
- `bounds`: vectors that are near, for little: what needs no exact search;
- `patch_scores`: scores of an image's patches, bounded at once and computed where it matters;
- `neighbourhoods`: the bank vectors around each bank vector;
- `scores`: the papers' formulas from distances to scores;
- `memory_bank`: the vectors kept, together with their search.
"""

from skad._bank.coreset import (
    covering_radius,
    greedy_k_center,
    projection_matrix,
)
from skad._bank.memory_bank import MemoryBank
from skad._bank.patch_scores import (
    Asking,
    HighestOfEach,
    PatchScores,
    Question,
    Score,
    answered,
    answered_together,
)
from skad._bank.scores import mean_of_nearest, reweight
from skad._bank.search import check_index
from skad._bank.selection import Coreset, Cover, grow_coreset, start_coreset

__all__ = [
    "Asking",
    "Coreset",
    "Cover",
    "HighestOfEach",
    "MemoryBank",
    "PatchScores",
    "Question",
    "Score",
    "answered",
    "answered_together",
    "check_index",
    "covering_radius",
    "greedy_k_center",
    "grow_coreset",
    "mean_of_nearest",
    "projection_matrix",
    "reweight",
    "start_coreset",
]
