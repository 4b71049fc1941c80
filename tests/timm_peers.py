"""Models of timm with every weight drawn, mechanisms for their sockets, and ours around them, all of them small."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mechanisms
from attnbench.models import find
from attnbench.models._timm import timm
from mechanisms import Site, configure
from tasks import Port
from tests.exact import drawn
from tests.test_limits_swin import precise

IMAGE = Port(inputs=3, outputs=5, shape=(16, 16), once=True)
SWIN: dict[str, Any] = {"size": "custom", "channels": 8, "blocks": "2 2", "patch": 2, "drop_path": 0.0}
VIT: dict[str, Any] = {"size": "custom", "channels": 8, "depth": 2, "patch": 4}
HEADS = {1: 3, 2: 6, 3: 12, 4: 24}  # of SwinV2-T's stages
LEVELS = {1: 3, 2: 2, 3: 1, 4: 1}  # of MANO in them


def swin(site: Site, heads: int = 2, window: int = 4) -> nn.Module:
    return mechanisms.build("swin", site, heads=heads, window=min(window, *site.shape), version="v2")


def mano(site: Site, heads: int = 2, levels: int = 2, window: int = 2) -> nn.Module:
    return mechanisms.build("mano", site, heads=heads, window=window, levels=levels, position="swin_v2")


def full(site: Site) -> nn.Module:
    return mechanisms.build("full", site, heads=2)


def made(name: str, port: Port, knobs: dict[str, Any], build: Callable[[Site], nn.Module]) -> Any:
    entry = find(name)
    module: Any = entry.module
    return module(port, configure(entry.config, knobs, of=name), build)


def weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def redrawn(model: Any) -> Any:
    """Every weight drawn, the norms too: timm starts Swin V2's at zero, where no block does anything."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float32).to(parameter.dtype) / 3
    for module in model.modules():
        if hasattr(module, "relative_coords_table"):
            module.relative_coords_table = precise(module.relative_coords_table.double(), module.window_size[0])
    return model.eval()


def peer_swin(port: Port, channels: int, blocks: tuple[int, ...], heads: tuple[int, ...], patch: int) -> Any:
    timm()
    kind = importlib.import_module("timm.models.swin_transformer_v2").SwinTransformerV2
    sizes = {"embed_dim": channels, "depths": blocks, "num_heads": heads, "patch_size": patch, "window_size": 4}
    return redrawn(kind(img_size=port.shape, in_chans=port.inputs, num_classes=port.outputs, **sizes))


def small_peer(port: Port = IMAGE) -> Any:
    return peer_swin(port, 8, (2, 2), (2, 2), 2)


def peer_vit(port: Port, *, class_token: bool = False) -> Any:
    timm()
    kind = importlib.import_module("timm.models.vision_transformer").VisionTransformer
    pool = {"class_token": class_token, "global_pool": "token" if class_token else "avg"}
    sizes = {"embed_dim": 8, "depth": 2, "num_heads": 2, "patch_size": 4}
    return redrawn(kind(img_size=port.shape, in_chans=port.inputs, num_classes=port.outputs, **pool, **sizes))


def saved(model: nn.Module, folder: Path) -> str:
    torch.save(model.state_dict(), folder / "weights.pth")
    return str(folder / "weights.pth")


def images(port: Port, dtype: torch.dtype = torch.float64) -> Tensor:
    return drawn(2, *port.shape, port.inputs).to(dtype)
