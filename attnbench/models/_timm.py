"""Starts timm also where torchvision was built for another torch than the one that is here.

torchvision's wheels are built for CUDA; beside a CPU build of torch their compiled operators cannot be loaded, and
importing torchvision, hence timm, fails for want of two of them. Only then are the two declared, without being defined:
everything else of both packages works, and calling them still fails in words of its own. Whoever imports timm after
this bench's models has the same help, and finds these models in timm's registry; see _timm_export.py.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch

MISSING = "operator torchvision::nms does not exist"
DECLARED: list[torch.library.Library] = []  # a declaration lasts as long as its library
EXPORT = "attnbench.models._timm_export"


def timm() -> ModuleType:
    """The package timm. Raises ImportError where it is not installed."""
    guard()
    return importlib.import_module("timm")


def guard() -> None:
    """Imports torchvision, with the two operators declared where they are missing."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if MISSING not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        declare()
        importlib.import_module("torchvision")


def declare() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    DECLARED.append(library)


class Welcome:
    """Finds timm as Python would, helps its import, and adds our models to its registry when it is there.

    So importing this bench's models need not take the seconds that timm takes.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "timm":
            return None
        others = (finder.find_spec for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (find(name, path, target) for find in others)), None)
        loader = spec.loader if spec else None
        if loader is None:
            return spec
        plain = loader.exec_module

        def helped(module: ModuleType) -> None:
            guard()
            plain(module)
            importlib.import_module(EXPORT)

        loader.exec_module = helped
        return spec


def announce() -> None:
    """From now on our models are in timm's registry, whether timm was imported before or will be."""
    if "timm" in sys.modules:
        importlib.import_module(EXPORT)
    elif not any(isinstance(finder, Welcome) for finder in sys.meta_path):
        sys.meta_path.insert(0, Welcome())
