"""The memory of a detector: which vectors to keep, and how to find the nearest of them.

Knows tensors and arrays, nothing of estimators or images.

- `sizes`: how many vectors to keep;
- `coreset`: few vectors that cover all (greedy k-centre);
- `selection`: the rules that choose a bank's vectors, at once or as good images come;
- `search`: exact nearest neighbours in torch, others through faiss;
- `neighbourhoods`: the bank vectors around each bank vector;
- `memory_bank`: the vectors kept, together with their search;
- `places`: the nearest places of some images, every place compared with all;
- `correspondences`: the same, by bounds of coarse layers; for speed alone;
- `bounds`: bounds of distances, for a fraction of a search; for speed alone (`_scoring.fast`).
"""

from skad._bank.coreset import (
    covering_radius,
    greedy_k_center,
    projection_matrix,
)
from skad._bank.memory_bank import LeaveOut, MemoryBank
from skad._bank.places import Gallery
from skad._bank.search import check_index
from skad._bank.selection import Coreset, Cover, grow_coreset, start_coreset
from skad._bank.sizes import bank_size

__all__ = [
    "Coreset",
    "Cover",
    "Gallery",
    "LeaveOut",
    "MemoryBank",
    "bank_size",
    "check_index",
    "covering_radius",
    "greedy_k_center",
    "grow_coreset",
    "projection_matrix",
    "start_coreset",
]
