"""Swin V2 with mechanisms of this bench in timm's registry: `timm.create_model("mano_swinv2_tiny")`.

Importing attnbench.models is enough; this file is imported with timm, see _timm.py. The models are those that `swinv2`
has around its mechanism, hence timm's class with other blocks: channels first, with its heads, features and traits.
mano_swinv2_*: MANO's image variant, 3, 2, 1 and 1 levels on Swin V2's attention in windows of 8 (Colagrande et al.,
2025, section 5, https://arxiv.org/abs/2507.02748); `window_size` and `levels` are arguments. On smaller images windows
shrink to the grid, as timm's do, and `levels` have to be fewer, such as (2, 1, 1, 1) at 64 x 64.
attnbench_swinv2_*: any mechanism, by the arguments `mechanism` and `knobs`; a knob may be a map from stages to values.
There are no pretrained weights, and a model keeps the size of image that it was made for.
"""

import importlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

import mechanisms
from attnbench.models._make import Builder
from attnbench.models._registry import models
from attnbench.models._timm import timm
from mechanisms import Build, Site, configure
from tasks import Port

SIZES = ("tiny", "small", "base")
HEADS = {"tiny": (3, 6, 12, 24), "small": (3, 6, 12, 24), "base": (4, 8, 16, 32)}  # timm's, in the stages
LEVELS = (3, 2, 1, 1)
Arguments = Any  # whatever timm hands on: the form of its entry points leaves no other type


def made(variant: str, build: Build, pretrained: bool, **arguments: Arguments) -> nn.Module:
    """A model as timm's own builder finishes it, or its features alone."""
    builder = importlib.import_module("timm.models").build_model_with_cfg
    size = variant.rpartition("_")[2]
    features = {"flatten_sequential": True, "out_indices": tuple(range(len(LEVELS)))}
    return builder(partial(network, size, build), variant, pretrained, feature_cfg=features, **arguments)


def network(
    size: str,
    build: Build,
    *,
    img_size: int | Sequence[int],
    in_chans: int,
    num_classes: int,
    **knobs: Arguments,
) -> nn.Module:
    """What `swinv2` has inside, under timm's names of arguments; others that timm has are refused."""
    shape = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    ours = {"patch_size": "patch", "drop_path_rate": "drop_path"}
    given = {ours.get(name, name): value for name, value in knobs.items()}
    entry = models.find("swinv2")
    config = configure(entry.config, {"size": size} | given, of="swinv2")
    model: Any = entry.module(Port(inputs=in_chans, outputs=num_classes, shape=shape, once=True), config, build)
    return model.net


def mano(pretrained: bool, *, variant: str, **arguments: Arguments) -> nn.Module:
    window, levels = arguments.pop("window_size", 8), tuple(arguments.pop("levels", LEVELS))
    if len(levels) != len(LEVELS):
        raise ValueError(f"{variant}: levels are one number for each of {len(LEVELS)} stages; got {levels}.")
    heads = HEADS[variant.rpartition("_")[2]]

    def build(site: Site) -> nn.Module:
        stage = site.stage - 1
        knobs: dict[str, Any] = {"heads": heads[stage], "levels": levels[stage], "window": min(window, *site.shape)}
        return mechanisms.build("mano", site, position="swin_v2", **knobs)

    return made(variant, build, pretrained, **arguments)


def socket(pretrained: bool, *, variant: str, **arguments: Arguments) -> nn.Module:
    mechanism, knobs = arguments.pop("mechanism", "full"), arguments.pop("knobs", {})
    spread = {
        name: {str(stage): one for stage, one in value.items()} if isinstance(value, Mapping) else value
        for name, value in knobs.items()
    }
    seed = int(torch.randint(2**62, (), device="cpu"))  # so that torch's seed decides these weights, too
    return made(variant, Builder(mechanism, spread, seed), pretrained, **arguments)


def described() -> dict[str, Any]:
    """What timm keeps of a model: the size of its images, how they are normed, where its first and last layers are."""
    data = importlib.import_module("timm.data")
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 256, 256),
        "fixed_input_size": True,
        "pool_size": (8, 8),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": data.IMAGENET_DEFAULT_MEAN,
        "std": data.IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head.fc",
    }


def enter(name: str, make: Any) -> None:
    """Adds an entry point to timm's registry."""
    entry: Any = partial(make, variant=name)
    entry.__name__, entry.__module__ = name, __name__  # timm reads both, and what it keeps of the model beside them
    default_cfgs[name] = described()
    importlib.import_module("timm.models").register_model(entry)


timm()
default_cfgs: dict[str, dict[str, Any]] = {}  # the name that timm looks for
for family, make in (("mano", mano), ("attnbench", socket)):
    for size in SIZES:
        enter(f"{family}_swinv2_{size}", make)
