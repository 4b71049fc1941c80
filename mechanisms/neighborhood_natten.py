"""Neighbourhood attention on NATTEN's kernels: the same numbers as `neighborhood`, without gathering the neighbours.

Hassani et al., "Faster Neighborhood Attention", NeurIPS 2024. https://arxiv.org/abs/2403.04690
Work N w^a for windows of w tokens on each of a axes. Needs the optional package natten.
Departs from the paper: nothing; the kernels are the authors' own. They have no bias for relative places.
"""

from einops import rearrange
from torch import nn

from mechanisms._heads import head_channels
from mechanisms._registry import register
from mechanisms._site import Site, Tokens
from mechanisms.neighborhood import Windows, reach, refuse_small


class Config(Windows):
    """The knobs of `neighborhood` that the kernels know."""


@register(
    "neighborhood_natten",
    Config,
    fits=("sequence", "causal", "grid"),
    order="N",
    reach=reach,
    needs="natten",
    devices=("cuda",),
    reference="neighborhood",
)
class NeighborhoodNatten(nn.Module):
    def __init__(self, site: Site, config: Config):
        super().__init__()
        head_channels(site, config.heads, of="neighborhood_natten")
        refuse_small(site, config, of="neighborhood_natten")
        self.heads, self.axes = config.heads, len(site.shape)
        self.window = {"kernel_size": config.window, "dilation": config.dilation, "is_causal": site.causal}
        self.q, self.k, self.v, self.out = (nn.Linear(site.channels, site.channels) for _ in range(4))

    def forward(self, x: Tokens) -> Tokens:
        import natten  # pyright: ignore[reportMissingImports]  # here, for only some machines have it

        q, k, v = (rearrange(p(x), "b ... (h d) -> b ... h d", h=self.heads) for p in (self.q, self.k, self.v))
        y = {1: natten.na1d, 2: natten.na2d}[self.axes](q, k, v, **self.window)
        return self.out(rearrange(y, "b ... h d -> b ... (h d)"))
