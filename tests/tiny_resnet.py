"""A ResNet of timm's with 4, 8 and 16 channels, for detectors that are kept in the repository.

Its weights are random, and kept too: random numbers differ between processors in their last digits.
"""

from pathlib import Path

from skad._features.nano import DESIGN, SkadNano, models

__all__ = ["tiny_resnet"]

WEIGHTS = Path(__file__).parent / "data" / "tiny_resnet.safetensors"

default_cfgs = models.generate_default_cfgs(
    {"tiny_resnet": {"file": str(WEIGHTS), "num_classes": 0, "first_conv": "conv1.0"}}
)


@models.register_model
def tiny_resnet(pretrained=False, **kwargs):
    return models.build_model_with_cfg(
        SkadNano,
        "tiny_resnet",
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **{**DESIGN, "channels": (4, 8, 16), **kwargs},
    )
