"""Weights that one training leaves for another: a file of tensors alone, with the names that the model gives them."""

from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

Weights = dict[str, Tensor]


def weights_of(model: nn.Module) -> Weights:
    """A copy of all that a model holds, learned or not, on the CPU."""
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def packed(weights: Weights) -> tuple[bytes, str]:
    """The bytes of a safetensors file, and their hash."""
    content = save(weights)
    return content, hashed(content)


def hashed(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def started(model: nn.Module, file: str) -> nn.Module:
    """The model with the weights of that file in it, or as it is for ''.

    Raises ValueError where there is no such file, and for one that is damaged or of another model.
    """
    if not file:
        return model
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"start: there is no file {path.absolute()}; keep_weights on a training leaves one.")
    try:
        weights = load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"start: {path.absolute()} is damaged, or no safetensors file: {error}") from None
    own = weights_of(model)
    for name in [*own, *weights]:
        came, expected = weights.get(name), own.get(name)
        if came is None or expected is None or (came.shape, came.dtype) != (expected.shape, expected.dtype):
            raise ValueError(f"start: {name} is {described(came)} in {path.name} and {described(expected)} here.")
    with torch.no_grad():
        state = model.state_dict()
        for name, value in weights.items():
            state[name].copy_(value)
    return model


def described(weight: Tensor | None) -> str:
    return "absent" if weight is None else f"{str(weight.dtype).removeprefix('torch.')} {tuple(weight.shape)}"
