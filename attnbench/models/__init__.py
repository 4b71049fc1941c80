"""Models: where a task and a mechanism meet. One file, one model; a file that starts with an underscore is plumbing.

They go back to the libraries, too: after this import `timm.create_model("mano_swinv2_tiny")` works, and `neuralop`
makes operators that neuraloperator's trainer trains.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from attnbench.models._make import Mechanism, counted, maker
from attnbench.models._registry import Model, models, register
from attnbench.models._timm import announce

find, names = models.find, models.names

__all__ = ["Mechanism", "Model", "counted", "find", "maker", "names", "neuralop", "register"]

announce()


def neuralop(
    model: str,
    *,
    in_channels: int,
    out_channels: int,
    shape: tuple[int, int],
    mechanism: str | tuple[str, Mapping[str, Any]] | None = None,
    **knobs: Any,
) -> nn.Module:
    """A model of this bench as one of neuraloperator's: channels first, as [B, in_channels, H, W], in and out.

    model: a model of fields, such as mano_net, or isotropic with a mechanism in its socket.
    shape: the grid it is made for; on other grids it is rebuilt with the same weights, where they do not depend on it.
    mechanism: a name, or a name and knobs, such as ("mano", {"levels": 2}).
    knobs: the model's own, such as channels and depth.
    Raises ValueError for unknown names and knobs, and for a shape that does not fit.
    """
    from attnbench.models._neuralop_export import Operator  # here, for the package's import takes seconds

    given = {"in_channels": in_channels, "out_channels": out_channels, "shape": shape, "mechanism": mechanism}
    return Operator(model, **given, **knobs)
