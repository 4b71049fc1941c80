"""DeltaNet on flash-linear-attention's CUDA kernels: the layer of `deltanet`, another implementation.

Yang et al., "Parallelizing Linear Transformers with the Delta Rule", NeurIPS 2024. https://arxiv.org/abs/2406.06484
Work N. Needs the optional package flash-linear-attention, whose kernels take CUDA tensors only.
Departs from the paper: as `deltanet` does in its layer; the sums are the package's own kernels, which refuse float32,
so tokens of that type have their sums in bfloat16 and err by its rounding.
"""

import torch
from einops import rearrange
from torch import Tensor

from mechanisms._registry import register
from mechanisms.deltanet import Config, Deltanet


@register(
    "deltanet_fla",
    Config,
    fits=("causal",),
    order="N",
    reach="global",
    needs="fla",
    devices=("cuda",),
    reference="deltanet",
)
class DeltanetFla(Deltanet):
    name = "deltanet_fla"

    def sums(self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
        # Here, for it takes seconds, and only where the optional package is installed.
        from fla.ops.delta_rule import chunk_delta_rule  # pyright: ignore[reportMissingImports]

        short = v.dtype if v.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
        q, k, v, beta = (rearrange(t.to(short), "b h n d -> b n h d").contiguous() for t in (q, k, v, beta))
        # q is scaled already.
        y, _ = chunk_delta_rule(q, k, v, beta.squeeze(-1), scale=1.0)  # pyright: ignore[reportCallIssue]
        return rearrange(y, "b n h d -> b h n d")
