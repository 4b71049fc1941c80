"""Full attention written out: for every query a list of keys, one softmax."""

from typing import Any

from attnbench.oracles import Case, Oracle, at
from attnbench.oracles._dense import full
from mechanisms import Site

CASES = [Case(site, {"heads": 2}) for site in (at(1), at(7), at(7, causal=True), at(3, 4), at(1, 5))]


def oracle(site: Site, config: Any) -> Oracle:
    return lambda weights, sample: full(sample, weights, heads=config.heads, causal=site.causal)
