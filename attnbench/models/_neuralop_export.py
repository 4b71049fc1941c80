"""Models of this bench by the conventions of the package neuraloperator, whose trainer can train them.

Kossaifi et al., "A Library for Learning Neural Operators", 2024. https://arxiv.org/abs/2412.10354
Its models take [B, in_channels, H, W] and give [B, out_channels, H, W], add coordinates by themselves, are called with
the whole sample as keywords, serve any resolution, and save and load themselves with the arguments they were made with.
Departs from the package: other keywords than x are passed over without a warning, for its trainer always gives y.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from neuralop.layers.embeddings import GridEmbedding2D
from neuralop.models.base_model import BaseModel
from torch import Tensor, nn

from attnbench.models._make import maker
from tasks import Port


class Operator(BaseModel, name="attnbench"):
    """See attnbench.models.neuralop."""

    def __init__(
        self,
        model: str,
        *,
        in_channels: int,
        out_channels: int,
        shape: tuple[int, int],
        mechanism: str | tuple[str, Mapping[str, Any]] | None = None,
        **knobs: Any,
    ):
        super().__init__()
        self.port = Port(inputs=in_channels + 2, outputs=out_channels, shape=tuple(shape), places=True)
        inside = (mechanism, {}) if isinstance(mechanism, str) else mechanism
        seed = int(torch.randint(2**62, (), device="cpu"))  # so that torch's seed decides the weights
        self.name, self.make = model, maker(model, knobs, inside, seed)
        self.places = GridEmbedding2D(in_channels=in_channels)
        self.net = self.make(self.port)
        self.others: dict[tuple[int, ...], nn.Module] = {}  # a plain dict, so that no weight is listed twice

    def forward(self, x: Tensor, **_sample: Any) -> Tensor:
        x = rearrange(self.places(x), "b c h w -> b h w c")
        return rearrange(self.at(x)(x), "b h w c -> b c h w")

    def at(self, x: Tensor) -> nn.Module:
        """The model for the grid of an input [B, H, W, C], whose weights are always those of the first."""
        shape = tuple(x.shape[1:3])
        if shape == self.port.shape:
            return self.net
        if shape not in self.others:
            self.others[shape] = self.make(replace(self.port, shape=shape))
        other = self.others[shape].to(x.device).train(self.training)
        try:
            other.load_state_dict(self.net.state_dict(keep_vars=True), assign=True)
        except RuntimeError as error:
            del self.others[shape]
            raise ValueError(
                f"{self.name} has weights that depend on its grid {self.port.shape}, so it cannot serve {shape}."
            ) from error
        return other
