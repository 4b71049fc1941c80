"""Heads: the one check that every mechanism with heads makes before it builds anything."""

from mechanisms._site import Site


def head_channels(site: Site, heads: int, *, of: str) -> int:
    """Channels of one head. Raises ValueError when the heads do not divide the channels."""
    if site.channels % heads:
        raise ValueError(f"{of}.heads must divide the {site.channels} channels of its site; got {heads}.")
    return site.channels // heads
