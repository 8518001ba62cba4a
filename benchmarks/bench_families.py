"""Families of backbones: what "auto" takes of them, how long an image takes, and what holds.

A table of docs/backbones.md.

Every network has random weights. "ms" is the CPU time of one thread for the network with its patch
embedding and one image in memory, median (lowest); the checks are:

timm        the maps are those inside the whole classifier as timm builds it, with the same weights
batch       an image embeds bit by bit alike alone and among others
save, load  a detector saved with its backbone scores bit by bit alike after loading

    OMP_NUM_THREADS=1 python benchmarks/bench_families.py
    OMP_NUM_THREADS=1 python benchmarks/bench_families.py --names resnet18.tv_in1k --repeats 25
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import skad
from skad import PatchCoreDetector
from skad._features import default_normalize, layer_strides
from skad._features._timm import import_timm
from skad._features.backbones import load_backbone
from skad._features.lite import NETWORKS

# Of every family one of the smaller networks, with the tag of weights that are often used; and the size
# where it is not the network's own.
FAMILIES: dict[str, tuple[tuple[str, int | None], ...]] = {
    "skad_nano": (("skad_nano", None),),
    "ResNet": (("resnet18.tv_in1k", None), ("resnet50.tv_in1k", None)),
    "WideResNet": (("wide_resnet50_2.tv_in1k", None),),
    "DenseNet": (("densenet169.tv_in1k", None),),
    "EfficientNet": (("efficientnet_b0.ra_in1k", None),),
    "EfficientNet-Lite": (("efficientnet_lite0", None),),
    "MobileNet": (("mobilenetv3_large_100.ra_in1k", None),),
    "RegNet": (("regnety_016.tv2_in1k", None),),
    "ConvNeXt": (("convnext_tiny.fb_in22k", None),),
    "Swin": (("swin_tiny_patch4_window7_224.ms_in1k", None),),
    "Hiera": (("hiera_tiny_224.mae_in1k_ft_in1k", None),),
    "MViTv2": (("mvitv2_tiny.fb_in1k", None),),
    "EfficientViT": (("efficientvit_b0.r224_in1k", None), ("efficientvit_m0.r224_in1k", None)),
    "ViT": (("vit_small_patch16_224.augreg_in21k_ft_in1k", None),),
    "DeiT": (("deit_tiny_patch16_224.fb_in1k", None),),
    "DINOv2": (
        ("vit_small_patch14_dinov2.lvd142m", None),
        ("vit_small_patch14_dinov2.lvd142m", 448),
    ),
    "DINOv3": (("vit_small_patch16_dinov3.lvd1689m", None),),
}
# Not timm's: there is nothing to hold it to.
OURS = "skad_nano"
COLUMNS = (
    *("family", "timm's name", "million weights", "px", "layers", "strides", "grid", "values"),
    *("ms", "checked"),
)


def whole_network(name: str, size: tuple[int, int] | None) -> Any:
    """Build the classifier that timm builds, with random weights."""
    options: list[dict[str, Any]] = [{}]
    if size is not None:
        options = [{"dynamic_img_size": True}, {"img_size": size}]
    for option in options:
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return import_timm().create_model(NETWORKS.get(name, name), **option).eval()
        except TypeError:
            continue
    raise ValueError(f"{name} takes no other size.")


def maps_inside(
    whole: Any, name: str, layers: tuple[int, ...], x: torch.Tensor
) -> list[torch.Tensor]:
    """Read the maps of layers off the classifier while it runs."""
    if hasattr(whole, "forward_intermediates"):
        return whole.forward_intermediates(
            x, indices=list(layers), intermediates_only=True, norm=default_normalize(name)
        )
    described = import_timm().create_model(NETWORKS.get(name, name), features_only=True)
    infos = [described.feature_info.info[layer] for layer in layers]
    modules = dict(whole.named_modules())
    found: dict[str, torch.Tensor] = {}
    for info in infos:
        into = info.get("hook_type") == "forward_pre"

        def keep(
            _: Any, given: Any, made: Any, key: str = info["module"], into: bool = into
        ) -> None:
            found[key] = given[0] if into else made

        modules[info["module"]].register_forward_hook(keep)
    whole(x)
    return [found[info["module"]] for info in infos]


def is_timms(name: str, layers: tuple[int, ...], side: int, given: int | None) -> bool:
    """Whether the maps are those inside timm's classifier with the same weights."""
    whole = whole_network(name, None if given is None else (side, side))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        save_file({key: value.contiguous() for key, value in whole.state_dict().items()}, file)
        net = load_backbone(
            name, file, layers, torch.device("cpu"), True, side, default_normalize(name)
        )
    pixels = random_images(2, side)
    x = torch.from_numpy(pixels).float() / 255
    x = ((x - net.mean.reshape(3)) / net.std.reshape(3)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        ours, theirs = net(torch.from_numpy(pixels)), maps_inside(whole, name, layers, x)
    for one, other in zip(ours, theirs, strict=True):
        if other.shape != one.shape:
            other = other.permute(0, 3, 1, 2)
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max())):
            return False
    return True


def random_images(n: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(n, side, side, 3), dtype=np.uint8)


def is_alike_in_batches(extractor: Any, images: np.ndarray) -> bool:
    alone = torch.cat([extractor.embed(image[None]) for image in images])
    return torch.equal(extractor.embed(images), alone)


def is_alike_after_loading(detector: PatchCoreDetector, images: list[np.ndarray]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.skad"
        skad.save(detector, path, include_backbone=True)
        return np.array_equal(skad.load(path).score_samples(images), detector.score_samples(images))


def milliseconds(extractor: Any, image: np.ndarray, repeats: int) -> str:
    """Median and lowest CPU time: others may be at work on the machine."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        extractor.embed(image[None])
        times.append(time.process_time() - start)
    return f"{1000 * statistics.median(times):.0f} ({1000 * min(times):.0f})"


def row(family: str, name: str, given: int | None, repeats: int) -> str:
    settings = {} if given is None else {"image_size": given}
    detector = PatchCoreDetector(
        name,
        weights=None,
        coreset_size=50,
        contamination=0.1,
        device="cpu",
        random_state=0,
        **settings,
    )
    images = list(random_images(4, 224))
    detector.fit(images[:3])
    spec, extractor = detector.feature_spec_, detector._as_fitted()._network
    side = spec.image_size
    several = random_images(3, side)
    checks = {
        "timm": name == OURS or is_timms(name, spec.layers, side, given),
        "batch": is_alike_in_batches(extractor, several),
        "save, load": is_alike_after_loading(detector, images),
    }
    held = [check for check, holds in checks.items() if holds and (name, check) != (OURS, "timm")]
    failed = [f"**not {check}**" for check, holds in checks.items() if not holds]
    weights = sum(p.numel() for p in whole_network(name, None).parameters()) / 1e6
    strides = [layer_strides(name)[layer] for layer in spec.layers]
    cells = [
        *(family, f"`{name}`", f"{weights:.1f}", str(side)),
        *(", ".join(map(str, spec.layers)), ", ".join(map(str, strides))),
        *(f"{extractor.grid[0]} x {extractor.grid[1]}", str(detector.bank_.vectors.shape[1])),
        *(milliseconds(extractor, several[0], repeats), ", ".join([*held, *failed])),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="+", help="some of the networks; all by default")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|", flush=True)
    for family, networks in FAMILIES.items():
        for name, given in networks:
            if args.names is None or name in args.names:
                print(row(family, name, given, args.repeats), flush=True)


if __name__ == "__main__":
    main()
