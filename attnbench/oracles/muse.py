"""Multipole semantic attention one query at a time: clusters as lists, each read around the query's centre."""

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from attnbench.oracles import Case, Oracle, at
from attnbench.oracles._dense import in_every_head
from mechanisms import Site

FEW = {"heads": 2, "query_clusters": 3, "key_clusters": 4}
CASES = [
    Case(at(1), {"heads": 2, "query_clusters": 1, "key_clusters": 1}),
    Case(at(11), FEW),
    Case(at(23), {"heads": 1, "query_clusters": 7, "key_clusters": 2, "iterations": 1}),
    Case(at(13), {**FEW, "order": "monopole"}),
    Case(at(9), {**FEW, "iterations": 0}),
    Case(at(4, 5), FEW),
    Case(at(5, 7), {**FEW, "heads": 3, "order": "monopole", "iterations": 2}),
    Case(at(3, 3), {"heads": 2, "query_clusters": 9, "key_clusters": 2}),
    Case(at(5, causal=True), {**FEW, "block": 8}),
    Case(at(29, causal=True), {**FEW, "block": 4}),
    Case(at(16, causal=True), {**FEW, "block": 4, "order": "monopole", "iterations": 1}),
    Case(at(7, causal=True), {"heads": 2, "query_clusters": 1, "key_clusters": 1, "block": 1}),
]


def closest(token: Tensor, centres: list[Tensor]) -> int:
    """The number of the centre nearest to a token; the first of equals."""
    distances = [float((token - centre).detach().square().sum()) for centre in centres]
    return distances.index(min(distances))


def k_means(tokens: Tensor, number: int, steps: int) -> list[Tensor]:
    """Evenly spaced tokens at first; each step replaces a centre by the mean of the tokens that are closest to it."""
    centres = [tokens[i * len(tokens) // number] for i in range(number)]
    for _ in range(steps):
        choice = [closest(token, centres) for token in tokens]
        for j in range(number):
            members = [token for token, chosen in zip(tokens, choice, strict=True) if chosen == j]
            if members:
                centres[j] = torch.stack(members).mean(0)
    return centres


def clusters(keys: Tensor, config: Any) -> list[list[int]]:
    """Lists of the keys in each cluster, without the empty ones."""
    centres = k_means(keys, config.key_clusters, config.iterations)
    choice = [closest(key, centres) for key in keys]
    return [found for j in range(len(centres)) if (found := [i for i, one in enumerate(choice) if one == j])]


def expand(query: Tensor, centre: Tensor, keys: Tensor, values: Tensor, dipole: bool) -> tuple[Tensor, Tensor]:
    """The log weight and the answer of one cluster, in first order of what the query differs from the centre."""
    step, scores = query - centre, keys @ centre
    shares = torch.softmax(scores, 0)
    mean_key, mean_value = shares @ keys, shares @ values
    answer = mean_value
    if dipole:
        for share, key, value in zip(shares, keys, values, strict=True):
            answer = answer + share * (value - mean_value) * torch.dot(key - mean_key, step)
    return torch.logsumexp(scores, 0) + torch.dot(step, mean_key), answer


def far(query: Tensor, centres: list[Tensor], lists: list[list[int]], k: Tensor, v: Tensor, dipole: bool) -> Any:
    """Log weights and answers of every cluster of keys to one query."""
    centre = centres[closest(query, centres)]
    return [expand(query, centre, k[members], v[members], dipole) for members in lists]


def mixed(read: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean of answers under one softmax of their log weights."""
    return torch.softmax(torch.stack([weight for weight, _ in read]), 0) @ torch.stack([answer for _, answer in read])


def whole(q: Tensor, k: Tensor, v: Tensor, config: Any) -> Tensor:
    """All queries to all keys."""
    centres, lists = k_means(q, config.query_clusters, config.iterations), clusters(k, config)
    return torch.stack([mixed(far(one, centres, lists, k, v, config.order == "dipole")) for one in q])


def past(q: Tensor, k: Tensor, v: Tensor, config: Any) -> Tensor:
    """Query i reads its block up to itself key by key, and in clusters the segment before each one around it."""
    segments: dict[tuple[int, int], tuple[list[Tensor], list[list[int]]]] = {}
    rows = []
    for i in range(len(q)):
        read = [(torch.dot(q[i], k[j]), v[j]) for j in range(i // config.block * config.block, i + 1)]
        length = config.block
        while length <= i:
            number = i // length
            if number % 2:
                begin, end = (number - 1) * length, number * length
                if (begin, end) not in segments:
                    centres = k_means(q[begin:end], config.query_clusters, config.iterations)
                    segments[begin, end] = centres, clusters(k[begin:end], config)
                read += far(q[i], *segments[begin, end], k[begin:end], v[begin:end], config.order == "dipole")
            length *= 2
        rows.append(mixed(read))
    return torch.stack(rows)


def oracle(site: Site, config: Any) -> Oracle:
    def one_head(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (past if site.causal else whole)(q / sqrt(q.shape[1]), k, v, config)

    def run(weights: Any, sample: Tensor) -> Tensor:
        tokens = sample.reshape(-1, sample.shape[-1])
        return in_every_head(tokens, weights, config.heads, one_head).reshape(sample.shape)

    return run
