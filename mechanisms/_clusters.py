"""Clusters of tokens by k-means, and the room in which unequal clusters become products of equal matrices."""

import torch
from torch import Tensor


def centres(x: Tensor, clusters: int, iterations: int) -> Tensor:
    """Centres [s, clusters, d] of tokens [s, n, d] by k-means; a centre that no token is nearest to stays in place."""
    found = x[:, torch.arange(clusters, device=x.device) * x.shape[1] // clusters]
    for _ in range(iterations):
        member = nearest(x, found).unsqueeze(1) == torch.arange(clusters, device=x.device).unsqueeze(-1)
        sizes = member.sum(-1, keepdim=True)
        found = torch.where(sizes > 0, member.to(x.dtype) @ x / sizes.clamp_min(1), found)
    return found


def nearest(x: Tensor, centre: Tensor) -> Tensor:
    """The number [s, n] of the centre nearest to each token."""
    with torch.no_grad():
        return (centre.square().sum(-1).unsqueeze(1) - 2 * x @ centre.mT).argmin(-1)


def blocks(group: Tensor, clusters: int) -> tuple[Tensor, Tensor, int]:
    """Room for unequal clusters in equal blocks: a slot for each token [s, n], an owner for each block, their size.

    About twice as many slots as tokens, whatever the clusters are; blocks of no cluster stay empty.
    """
    tokens = group.shape[1]
    size = -(-tokens // clusters)
    member = group.unsqueeze(1) == torch.arange(clusters, device=group.device).unsqueeze(-1)
    rank = (member.cumsum(-1).gather(1, group.unsqueeze(1)) - 1).squeeze(1)
    needed = -(-member.sum(-1) // size)
    first = needed.cumsum(-1) - needed
    slot = first.gather(1, group) * size + rank
    owner = group.new_zeros(len(group), tokens // size + clusters).scatter(1, slot // size, group)
    return slot, owner, size


def filled(x: Tensor, slot: Tensor, owner: Tensor, size: int) -> Tensor:
    """Tokens [s, n, d] in the slots of blocks [s, b, size, d], zero where there is none."""
    room = x.new_zeros(len(x), owner.shape[1] * size, x.shape[-1])
    return room.scatter(1, slot.unsqueeze(-1).expand_as(x), x).unflatten(1, (-1, size))
