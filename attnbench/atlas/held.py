"""Holds a module's queries and keys while its input changes, so that only the values follow.

One pass with the real tokens records what every linear map but `v` and `out` returned; later passes, with anything in
the tokens' place, get the recorded answers instead. What is left is the map from values to outputs that attention
applies: its rows. Linear maps are caught at torch.nn.functional.linear by their weights, also where a mechanism joins
several of them to one product.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from attnbench.atlas.pairs import SHARED

VALUES = ("v", "out")


class Unheld(ValueError):
    """Why the queries and keys of a module cannot be held, in words that end a sentence."""


class Held(TorchFunctionMode):
    """Records linear maps on the first pass, and answers with the record on later ones.

    recorded: answers in the order of the calls. None among `owners` stands for a linear map that is not held.
    """

    def __init__(self, owners: dict[int, bool]):
        super().__init__()
        self.owners, self.joined = owners, {}
        self.recorded: list[Tensor] = []
        self.replaying, self.place, self.batch = False, 0, 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if func is torch.cat and all(id(part) in self.owners for part in args[0]):
            made = func(*args, **kwargs)
            self.joined[id(made)] = made, [(len(part), self.owners[id(part)]) for part in args[0]]
            return made
        if func is not F.linear:
            return func(*args, **kwargs)
        x, weight = args[0], args[1] if len(args) > 1 else kwargs["weight"]
        made = func(*args, **kwargs)
        if id(weight) in self.joined:
            sizes, held = zip(*self.joined[id(weight)][1], strict=True)
            parts = made.split(sizes, -1)
            return torch.cat([self.answer(y) if one else y for y, one in zip(parts, held, strict=True)], -1)
        return self.answer(made) if self.owners.get(id(weight)) and isinstance(x, Tensor) else made

    def answer(self, made: Tensor) -> Tensor:
        if not self.replaying:
            self.recorded.append(made.detach())
            return made
        if self.place >= len(self.recorded):
            raise Unheld("another number of linear maps runs on other values")
        found, self.place = self.recorded[self.place], self.place + 1
        if found.shape == made.shape:
            return found
        if made.shape != (self.batch * len(found), *found.shape[1:]):
            raise Unheld("its linear maps take samples in an order of their own")
        return found.repeat(self.batch, *[1] * (found.ndim - 1))


class ValueMap:
    """What a module makes of values while its queries and keys are those of given tokens; `v` and `out` do nothing.

    tokens: [1, *shape, C]. Raises Unheld where that cannot be had.
    """

    def __init__(self, module: nn.Module, tokens: Tensor):
        self.module, self.tokens = module, tokens
        owners = {id(one): not valued(name, one) for name, one in module.named_parameters() if one.ndim == 2}
        self.held = Held(owners)
        with torch.no_grad(), plain_values(module):
            with self.held:
                self.at_tokens = module(tokens)
            self.held.replaying = True
            self.at_zero = self.run(torch.zeros_like(tokens))
            twice = self.run(torch.cat([tokens, tokens]))
        if not torch.allclose(twice, self.at_tokens.expand_as(twice), rtol=1e-6, atol=1e-8):
            raise Unheld("its queries and keys do not stay when they are held")
        self.refuse_curved()

    def run(self, values: Tensor) -> Tensor:
        self.held.place, self.held.batch = 0, len(values)
        with self.held:
            return self.module(values)

    def __call__(self, values: Tensor) -> Tensor:
        """[B, *shape, C] to [B, *shape, C], linear."""
        with torch.no_grad(), plain_values(self.module):
            return self.run(values) - self.at_zero

    def refuse_curved(self) -> None:
        """Raises Unheld unless the sum of two values' answers is the answer of their sum."""
        chance = torch.Generator().manual_seed(7)
        values = torch.randn(2, *self.tokens.shape[1:], generator=chance, dtype=torch.float64).to(self.tokens)
        one, other, both = self(torch.cat([values, values.sum(0, keepdim=True)]))
        error, size = (one + other - both).norm(), both.norm()
        if not error <= 1e-4 * max(size, torch.finfo(size.dtype).tiny):
            raise Unheld("its answer is not linear in the values")


def valued(name: str, weight: Tensor) -> bool:
    """Whether a parameter is the matrix or the bias of a linear map on the way of the values."""
    found = SHARED.search(name)
    return bool(found) and found[1] in VALUES and weight.ndim == (2 if found[2] == "weight" else 1)


@contextmanager
def plain_values(module: nn.Module) -> Iterator[None]:
    """Makes `v` and `out` the identity, and puts their weights back. Raises Unheld where one of them is not square."""
    kept = {name: weight for name, weight in module.named_parameters() if valued(name, weight)}
    parts = {found[1] for name in kept if (found := SHARED.search(name))}
    if parts != set(VALUES) or any(weight.ndim == 2 and weight.shape[0] != weight.shape[1] for weight in kept.values()):
        raise Unheld("it has no projections v and out of full attention's shape")
    saved = {name: weight.detach().clone() for name, weight in kept.items()}
    try:
        with torch.no_grad():
            for weight in kept.values():
                weight.copy_(torch.eye(len(weight)) if weight.ndim == 2 else torch.zeros(len(weight)))
        yield
    finally:
        with torch.no_grad():
            for name, weight in kept.items():
                weight.copy_(saved[name])
