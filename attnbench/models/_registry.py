"""Declares models, as mechanisms/_registry.py declares mechanisms."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from mechanisms import Knobs, Registry

Module = TypeVar("Module", bound=type[nn.Module])


@dataclass(frozen=True, kw_only=True)
class Model:
    """What the bench knows of a model before building it.

    socket: whether it is built around a mechanism, `Class(port, config, build)`, or is a whole model with none inside,
        `Class(port, config)`.
    version: raised when its behaviour changes, so that old rows keep their own ids.
    """

    name: str
    module: type[nn.Module]
    config: type[Knobs]
    socket: bool
    version: int = 1


models = Registry[Model]("attnbench.models")


def register(name: str, config: type[Knobs], *, socket: bool, version: int = 1) -> Callable[[Module], Module]:
    """Declares the class below it as a model."""

    def declare(module: Module) -> Module:
        entry = Model(name=name, module=module, config=config, socket=socket, version=version)
        models.add(name, entry, module.__module__)
        return module

    return declare
