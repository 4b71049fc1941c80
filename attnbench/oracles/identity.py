"""Identity written out: what comes in goes out."""

from typing import Any

from attnbench.oracles import Case, Oracle, at
from mechanisms import Site

CASES = [Case(at(5), {}), Case(at(5, causal=True), {}), Case(at(4, 3), {})]


def oracle(site: Site, config: Any) -> Oracle:  # noqa: ARG001 - all slow forms are asked alike
    return lambda weights, sample: sample.clone()  # noqa: ARG005 - it has no weights
