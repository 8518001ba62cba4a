"""What a detector of your own derives from, and what its hooks take and give.

`BaseImageDetector` says which hooks there are, and has an example.
"""

from skad._base import BaseImageDetector
from skad._callbacks import FitProgress
from skad._images import ImageBatch, ImageSource
from skad._scoring.results import BatchScores, TrainingScores

__all__ = [
    "BaseImageDetector",
    "BatchScores",
    "FitProgress",
    "ImageBatch",
    "ImageSource",
    "TrainingScores",
]
