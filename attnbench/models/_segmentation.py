"""What models made of the package segmentation-models-pytorch share: how it is imported, and what to do without it."""

import importlib
from types import ModuleType

from attnbench.models._timm import timm

PACKAGE = "segmentation_models_pytorch"


def library(module: str = "", *, of: str) -> ModuleType:
    """A module of the package, or the package. Raises ValueError, with the remedy, where it is not installed."""
    timm()  # the package imports it, and torchvision
    try:
        package = importlib.import_module(PACKAGE)
    except ModuleNotFoundError as error:
        if error.name != PACKAGE:
            raise
        package = None
    if package is None or not hasattr(package, "__path__"):  # a lone file of this name is not the package
        raise ValueError(
            f"{of} needs the package segmentation-models-pytorch: pip install 'attnbench[segmentation]' brings it."
        )
    return importlib.import_module(f"{PACKAGE}.{module}") if module else package
