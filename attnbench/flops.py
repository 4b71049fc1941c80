"""Counts the work of a forward pass from shapes alone, on the meta device, where nothing is allocated or computed.

torch's FlopCounterMode takes fused attention on a CPU for no work and a complex product for a real one, and it counts
no FFT and no triangular solve. On the meta device fused attention is counted; the other gaps are closed here. Pointwise
work, softmax, norms and pooling are not counted: the columns are called matmul_flops and fft_flops for that reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log2, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from tasks import Port

aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)
SOLVES = (aten.linalg_solve_triangular,)
TRANSFORMS = (aten._fft_r2c, aten._fft_c2r, aten._fft_c2c)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a model is and does for one example.

    params: weights, a complex one counted as two reals; params_trained are those that training changes, and
        params_pretrained those that came from a file or a hub of weights.
    matmul_flops, fft_flops: of one forward pass, a multiply-add counted as two.
    """

    params: int
    params_trained: int
    params_pretrained: int
    matmul_flops: int
    fft_flops: int


def count(make: Callable[[Port], nn.Module], port: Port) -> Work:
    """The work of a model on one example.

    Raises what building or running the model raises, such as a misfit; ValueError for weights without counted work.
    """
    with torch.device("meta"):
        model = make(port).eval()
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
            model(port.blank(1))
    by_operator = counter.get_flop_counts().get("Global", {})
    fft = sum(flops for operator, flops in by_operator.items() if operator in TRANSFORMS)
    weights = dict(model.named_parameters())
    came = getattr(model, "origin", dict)()
    params = sum(map(reals, weights.values()))
    if params and not any(by_operator.values()):
        raise ValueError(f"{type(model).__name__} has {params} weights and no work that the counter sees.")
    return Work(
        params=params,
        params_trained=sum(reals(weight) for weight in weights.values() if weight.requires_grad),
        params_pretrained=sum(reals(weight) for name, weight in weights.items() if came.get(name) == "pretrained"),
        matmul_flops=sum(by_operator.values()) - fft,
        fft_flops=fft,
    )


def reals(tensor: Tensor) -> int:
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def formulas() -> dict[Any, Any]:
    found = {product: complex_aware(product) for product in PRODUCTS} | dict.fromkeys(TRANSFORMS, transform)
    return found | dict.fromkeys(SOLVES, solve)


def complex_aware(operator: Any) -> Callable[..., int]:
    """The counter's own formula, times four where the operands are complex."""
    plain = flop_registry[operator]

    def formula(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        return plain(*args, out_val=out_val, **kwargs) * (4 if args[0].is_complex() else 1)

    formula._get_raw = True  # type: ignore[attr-defined]  # the counter then hands over tensors instead of shapes
    return formula


def solve(triangle: Tensor, right: Tensor, *_: Any, left: bool = True, out_val: Any = None, **__: Any) -> int:
    """n^2 operations for every right-hand side of n numbers: half of a product with the whole matrix."""
    del out_val
    columns = right.numel() // right.shape[-2 if left else -1]
    return triangle.shape[-1] ** 2 * columns


solve._get_raw = True  # type: ignore[attr-defined]


def transform(source: Tensor, axes: list[int], *_: Any, out_val: Tensor, **__: Any) -> int:
    """5 n log2 n for a complex transform of n points (Cooley and Tukey's count), half of it where one side is real."""
    larger = source if source.numel() > out_val.numel() else out_val
    points = prod(larger.shape[axis] for axis in axes)
    share = 1.0 if source.is_complex() and out_val.is_complex() else 0.5
    return int(share * 5 * larger.numel() * log2(points)) if points > 1 else 0


transform._get_raw = True  # type: ignore[attr-defined]
