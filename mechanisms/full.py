"""Full attention: every token attends to every token by a softmax over scaled dot products.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, equation 1. https://arxiv.org/abs/1706.03762
Work N^2. Runs on torch's fused scaled_dot_product_attention, on the kernel that torch chooses or the one that is named.
Departs from the paper: nothing in the attention itself; no dropout.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from einops import rearrange
from pydantic import PositiveInt, field_validator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._registry import register
from mechanisms._site import Site, Tokens

BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
ABSENT = ("No available kernel", "No viable backend")  # what torch says when the named kernel cannot take the tensors


class Config(Knobs):
    neutral: ClassVar[Mapping[str, Any]] = {"backend": "auto"}

    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    backend: Literal["auto", "math", "flash", "efficient", "cudnn"] = "auto"
    """kernel of torch's scaled_dot_product_attention; one that cannot run is refused, never replaced"""

    @field_validator("backend", mode="before")
    @classmethod
    def another_package_is_another_mechanism(cls, backend: Any) -> Any:
        if backend == "xformers":
            raise ValueError("a kernel of torch; xFormers' kernels are the mechanism full_xformers")
        return backend


@register("full", Config, fits=("sequence", "causal", "grid"), order="N^2", reach="global")
class Full(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="full")
        self.heads, self.causal, self.backend = config.heads, site.causal, config.backend
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = (rearrange(p(x), "b ... (h d) -> b h (...) d", h=self.heads) for p in (self.q, self.k, self.v))
        y = self.attend(q, k, v)
        return self.out(rearrange(y, "b h n d -> b n (h d)").reshape(x.shape))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Raises ValueError where the named kernel cannot take such tensors; on the meta device none is needed."""
        if self.backend == "auto" or q.is_meta:
            return scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        try:
            with sdpa_kernel(BACKENDS[self.backend]):
                return scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        except RuntimeError as error:
            if not any(words in str(error) for words in ABSENT):
                raise
            where = f"{q.dtype} on {q.device.type}".removeprefix("torch.")
            raise ValueError(
                f"full.backend {self.backend} cannot run on {where} with {q.shape[-1]} channels a head; "
                "choose another backend, or auto."
            ) from None
