"""Networks of several of timm's families, small, under names of their own; their weights are random."""

from skad._features._timm import import_timm

__all__ = ["tiny_convnext", "tiny_densenet", "tiny_efficientnet", "tiny_swin"]

models = import_timm().models


@models.register_model
def tiny_convnext(pretrained=False, **kwargs):
    """Layer norms; features of both signs; its first layer has stride 4."""
    size = {"depths": (1, 1, 1, 1), "dims": (8, 12, 20, 24)}
    return models.convnext.convnext_atto(pretrained, **size, **kwargs)


@models.register_model
def tiny_efficientnet(pretrained=False, **kwargs):
    """Batch norms with an activation of their own; features of both signs."""
    return models.efficientnet._gen_efficientnet(
        "efficientnet_b0", 0.25, 0.3, pretrained=pretrained, **kwargs
    )


@models.register_model
def tiny_densenet(pretrained=False, **kwargs):
    size = {"growth_rate": 8, "block_config": (1, 1, 1, 1)}
    return models.densenet.densenet121(pretrained, **size, **kwargs)


@models.register_model
def tiny_swin(pretrained=False, **kwargs):
    """A transformer whose stages halve the grid, for images of 64 pixels; channels last."""
    size = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2), "window_size": 2}
    return models.swin_transformer.swin_tiny_patch4_window7_224(
        pretrained, img_size=64, **size, **kwargs
    )
