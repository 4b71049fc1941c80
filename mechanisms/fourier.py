"""Spectral convolution: a learned complex matrix for each low Fourier mode of the tokens. A neural operator's mixer.

Li et al., "Fourier Neural Operator for Parametric Partial Differential Equations", ICLR 2021, equation 4 and section 4.
https://arxiv.org/abs/2010.08895
Work N log N in Fourier transforms; its matrix products depend on the modes alone. Periodic, and no attention.
Departs from the paper: nothing in the convolution, which keeps modes and scales them as the package neuraloperator
does; the pointwise path beside it is left to the backbone's MLP. On odd sides the package shifts modes back one place
too far, which is not followed. Complex weights are held as pairs of reals, so that casting a model to another precision
keeps them. It computes in float32 below that precision, which transforms do not offer.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from mechanisms._knobs import Knobs
from mechanisms._precise import uncast
from mechanisms._registry import register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    modes: PositiveInt = 8
    """Fourier modes kept on each axis, positive and negative ones together, as neuraloperator counts them"""


@register("fourier", Config, fits=("sequence", "grid"), order="N log N", reach="global")
class Fourier(nn.Module):
    """weight: [C in, C out, *kept modes, 2], real and imaginary part; the last axis of modes has its positive half."""

    def __init__(self, site: Site, config: Config):
        super().__init__()
        if config.modes > min(site.shape):
            raise ValueError(
                f"fourier.modes is at most the shorter side, {min(site.shape)}, of its site; got {config.modes}."
            )
        self.axes, self.modes = tuple(range(1, len(site.shape) + 1)), config.modes
        kept = (*(config.modes for _ in site.shape[1:]), config.modes // 2 + 1)
        self.weight = nn.Parameter(torch.empty(site.channels, site.channels, *kept, 2))
        nn.init.normal_(self.weight, std=(2 / (site.channels + site.channels)) ** 0.5 / 2**0.5)
        self.bias = nn.Parameter(torch.zeros(site.channels))

    def forward(self, x: Tokens) -> Tokens:
        with uncast(x.device):
            precise = x if x.dtype == torch.float64 else x.float()
            spectrum = torch.fft.rfftn(precise, dim=self.axes, norm="forward")
            weight = torch.view_as_complex(self.weight.to(precise.dtype).contiguous())
            low = (slice(None), *places(x.shape[1:-1], self.modes, x.device))
            axes = "xy"[: len(self.axes)]
            mixed = torch.zeros_like(spectrum)
            mixed[low] = torch.einsum(f"b{axes}i,io{axes}->b{axes}o", spectrum[low], weight)
            y = torch.fft.irfftn(mixed, s=x.shape[1:-1], dim=self.axes, norm="forward")
        return y.to(x.dtype) + self.bias.to(x.dtype)


def places(shape: torch.Size, modes: int, device: torch.device) -> tuple[Tensor, ...]:
    """Where the kept modes stand in a real transform: on the last axis from 0 up, on others around 0, which wraps."""
    around = [(torch.arange(modes, device=device) - modes // 2) % side for side in shape[:-1]]
    return torch.meshgrid(*around, torch.arange(modes // 2 + 1, device=device), indexing="ij")
