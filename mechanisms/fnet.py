"""FNet: the real part of a Fourier transform over tokens and channels. A control that mixes everything without weights.

Lee-Thorp et al., "FNet: Mixing Tokens with Fourier Transforms", NAACL 2022, equation 3.
https://arxiv.org/abs/2105.03824
Work N log N, all of it in Fourier transforms; no weights and no matrix products.
Departs from the paper: the transform is orthonormal, so that it changes no norm and the residual stays in proportion;
on grids it runs over both axes. It computes in float32 below that precision, which transforms do not offer.
"""

import torch
from torch import nn

from mechanisms._knobs import Knobs
from mechanisms._registry import register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    pass


@register("fnet", Config, fits=("sequence", "grid"), order="N log N", reach="global")
class FNet(nn.Module):
    def __init__(self, site: Site, config: Config):  # noqa: ARG002 - all mechanisms are built alike
        super().__init__()
        self.axes = tuple(range(1, len(site.shape) + 2))

    def forward(self, x: Tokens) -> Tokens:
        precise = x if x.dtype == torch.float64 else x.float()
        return torch.fft.fftn(precise, dim=self.axes, norm="ortho").real.to(x.dtype)
