"""What a detector of your own derives from, and what its hooks take and give.

`BaseImageDetector` says which hooks there are, and has an example.
"""

from skad._base import (
    BaseImageDetector,
    BatchScores,
    FitProgress,
    ImageBatch,
    ImageSource,
    TrainingScores,
)

__all__ = [
    "BaseImageDetector",
    "BatchScores",
    "FitProgress",
    "ImageBatch",
    "ImageSource",
    "TrainingScores",
]
