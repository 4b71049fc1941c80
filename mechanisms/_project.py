"""Several projections of the same tokens as one product, which reads the tokens once."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def project(x: Tensor, *layers: nn.Module) -> Tensor:
    """What linear layers make of x [..., C], one beside another [..., sum of their outputs]."""
    weights: list[Tensor] = [layer.get_parameter("weight") for layer in layers]
    biases = [layer._parameters["bias"] for layer in layers]
    if all(bias is None for bias in biases):
        return F.linear(x, torch.cat(weights))
    filled = [w.new_zeros(len(w)) if bias is None else bias for w, bias in zip(weights, biases, strict=True)]
    return F.linear(x, torch.cat(weights), torch.cat(filled))
