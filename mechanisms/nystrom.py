"""Nystromformer: attention through landmarks, the means of segments, and the pseudoinverse of their own attention.

Xiong et al., "Nystromformer", AAAI 2021, equations 13 to 15. https://arxiv.org/abs/2102.03902
Work N m d for m landmarks, and m^3 for the pseudoinverse, found by a fixed number of products.
With landmarks q' and k', y = softmax(q k') Z softmax(q' k) v, where Z comes from A = softmax(q' k') by
Z <- Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4, at first Z = A^T over the largest row sum and column sum of A.
Departs from the paper: where the landmarks do not divide the tokens, the first segments hold one token more, without
padding; Z starts from each matrix's own sums, not from the largest in a batch; the convolution of v is off unless
`convolution` asks for it; grids are taken row by row; what lies between the projections is at least float32.
"""

import torch
from einops import rearrange
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from mechanisms._heads import head_channels
from mechanisms._knobs import Knobs
from mechanisms._precise import uncast
from mechanisms._registry import register
from mechanisms._site import Site, Tokens


class Config(Knobs):
    heads: PositiveInt = 4
    """number of heads; divides the channels"""
    landmarks: PositiveInt = 16
    """number of segments whose means stand for all queries and keys; at most the tokens"""
    iterations: PositiveInt = 6
    """steps towards the pseudoinverse, each of third order"""
    convolution: int = Field(default=0, ge=0)
    """tokens under a learned filter, one for each head, that adds neighbouring values; odd, or 0 for none"""

    @field_validator("convolution")
    @classmethod
    def odd(cls, convolution: int) -> int:
        if convolution and convolution % 2 == 0:
            raise ValueError("odd, or 0")
        return convolution


@register("nystrom", Config, fits=("sequence", "grid"), order="N", reach="global")
class Nystrom(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="nystrom")
        if config.landmarks > site.tokens:
            raise ValueError(
                f"nystrom.landmarks must be at most {site.tokens}, the tokens of its site; got {config.landmarks}."
            )
        self.heads, self.landmarks, self.iterations = config.heads, config.landmarks, config.iterations
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))
        self.convolution = None
        if size := config.convolution:
            self.convolution = nn.Conv2d(
                config.heads, config.heads, (size, 1), padding=(size // 2, 0), groups=config.heads, bias=False
            )

    def forward(self, x: Tokens) -> Tokens:
        q, k, v = (rearrange(p(x), "b ... (h d) -> b h (...) d", h=self.heads) for p in (self.q, self.k, self.v))
        y = self.through_landmarks(q, k, v).to(v.dtype)
        if self.convolution is not None:
            y = y + self.convolution(v)
        return self.out(rearrange(y, "b h n d -> b n (h d)").reshape(x.shape))

    def through_landmarks(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """In float32 at least: the pseudoinverse enlarges the roundings of what it is multiplied with."""
        wide = torch.promote_types(q.dtype, torch.float32)
        with uncast(q.device):
            q, k, v = q.to(wide) * q.shape[-1] ** -0.5, k.to(wide), v.to(wide)
            few_q, few_k = segment_means(q, self.landmarks), segment_means(k, self.landmarks)
            inverse = pseudoinverse((few_q @ few_k.mT).softmax(-1), self.iterations)
            return (q @ few_k.mT).softmax(-1) @ (inverse @ ((few_q @ k.mT).softmax(-1) @ v))


def segment_means(x: Tensor, segments: int) -> Tensor:
    """Means [b, h, segments, d] of neighbouring tokens; the first segments may be one token longer."""
    size, longer = divmod(x.shape[2], segments)
    head, tail = x.split([longer * (size + 1), (segments - longer) * size], 2)
    return torch.cat([head.unflatten(2, (longer, size + 1)).mean(3), tail.unflatten(2, (-1, size)).mean(3)], 2)


def pseudoinverse(matrix: Tensor, iterations: int) -> Tensor:
    """An approximation of the pseudoinverse of non-negative matrices [..., m, m]."""
    sums = matrix.sum(-1).amax(-1) * matrix.sum(-2).amax(-1)
    inverse = matrix.mT / sums[..., None, None]
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(iterations):
        product = matrix @ inverse
        inverse = inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product))) / 4
    return inverse
