"""skad_nano: the small backbone that comes with the package, an ordinary model of timm's.

How the weights were trained, on what and how well they do: ``docs/skad_nano.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skad._features._timm import import_timm
from skad._features.weight_files import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["SkadNano"]  # timm adds the names it registers

models = import_timm().models
WEIGHTS = Path(__file__).parent / "weights" / "skad_nano.safetensors"
DESIGN: dict[str, Any] = {
    "block": models.resnet.BasicBlock,
    "layers": (1, 2, 2),
    "channels": (32, 64, 128),
    "stem_type": "deep",
    "stem_width": 8,
}

default_cfgs = models.generate_default_cfgs(
    {
        "skad_nano": {
            "file": str(WEIGHTS),
            "input_size": (3, 320, 320),
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "num_classes": 0,
            "first_conv": "conv1.0",
            "license": "bsd-3-clause",
        }
    }
)


class SkadNano(models.resnet.ResNet):  # type: ignore[name-defined]
    """A ResNet of three stages whose layers are linear views of them.

    Each neck is C^(-1/4), with C the covariance of its stage's output over images that were not
    trained on: distances between vectors of a layer lie half-way between plain ones, which strong
    channels rule, and Mahalanobis distances, which noise rules.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        widths = [info["num_chs"] for info in self.feature_info[1:]]
        self.necks = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for width in widths)

    def stages(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the outputs at strides 2, 4, 8 and 16, each computed when asked for."""
        x = self.act1(self.bn1(self.conv1(x)))
        yield x
        x = self.maxpool(x)
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
            yield x

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        *_, last = self.stages(x)
        return last

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: Sequence[int] = (0, 1, 2, 3),
        *,
        intermediates_only: bool = False,
        **_: Any,
    ) -> Any:
        """Return the layers `indices`, after the deepest stage unless `intermediates_only`."""
        if not intermediates_only:
            return self.forward_features(x), self.forward_intermediates(
                x, indices, intermediates_only=True
            )
        views = [nn.Identity(), *self.necks]
        outputs = zip(range(max(indices) + 1), views, self.stages(x), strict=False)
        return [view(output) for layer, view, output in outputs if layer in indices]

    def prune_intermediate_layers(self, indices: Sequence[int], **_: Any) -> list[int]:
        """Drop the stages that are deeper than all `indices`."""
        layers = [index % len(self.feature_info) for index in indices if -4 <= index < 4]
        if len(layers) < len(indices):
            raise IndexError(f"layers {tuple(indices)} do not all exist: the last layer is 3.")
        for layer in range(max(layers) + 1, 4):
            setattr(self, f"layer{layer}", nn.Identity())
            self.necks[layer - 1] = nn.Identity()
        return layers


@models.register_model
def skad_nano(pretrained: bool = False, **kwargs: Any) -> SkadNano:
    """Build skad_nano; called by ``timm.create_model``."""
    return models.build_model_with_cfg(
        SkadNano,
        "skad_nano",
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **{**DESIGN, **kwargs},
    )
