"""Gated linear attention on flash-linear-attention's CUDA kernels: the layer of `gla`, another implementation.

Yang et al., "Gated Linear Attention Transformers with Hardware-Efficient Training", ICML 2024.
https://arxiv.org/abs/2312.06635
Work N. Needs the optional package flash-linear-attention, whose kernels take CUDA tensors only.
Departs from the paper: as `gla` does in its layer; the sums are the package's own kernels.
"""

from einops import rearrange
from torch import Tensor

from mechanisms._registry import register
from mechanisms.gla import Config, Gla


@register(
    "gla_fla", Config, fits=("causal",), order="N", reach="global", needs="fla", devices=("cuda",), reference="gla"
)
class GlaFla(Gla):
    name = "gla_fla"

    def sums(self, q: Tensor, k: Tensor, v: Tensor, log_a: Tensor) -> Tensor:
        # Here, for it takes seconds, and only where the optional package is installed.
        from fla.ops.gla import chunk_gla  # pyright: ignore[reportMissingImports]

        q, k, v, log_a = (rearrange(t, "b h n d -> b n h d").contiguous() for t in (q, k, v, log_a))
        # q is scaled already.
        y, _ = chunk_gla(q, k, v, log_a, scale=1.0)  # pyright: ignore[reportCallIssue]
        return rearrange(y, "b n h d -> b h n d")
