"""Starts timm also where torchvision was built for another torch than the one that is here.

torchvision's wheels are built for CUDA; beside a CPU build of torch their compiled operators cannot be loaded, and
importing torchvision, hence timm, fails for want of two of them. Only then are the two declared, without being defined:
everything else of both packages works, and calling them still fails in words of its own.
"""

import importlib
import sys
from types import ModuleType

import torch

MISSING = "operator torchvision::nms does not exist"
DECLARED: list[torch.library.Library] = []  # a declaration lasts as long as its library


def timm() -> ModuleType:
    """The package timm. Raises ImportError where it is not installed."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if MISSING not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        declare()
        importlib.import_module("torchvision")
    return importlib.import_module("timm")


def declare() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    DECLARED.append(library)
