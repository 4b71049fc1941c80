"""Weights that were trained elsewhere: where they are read, where they go in a model, and which are trained further.

They come as timm names them, from a local file of weights alone or from timm's hub. Fused projections of attention are
taken apart and go, as q, k, v and out, into any mechanism that has weights of these names and shapes; a mechanism with
its own set for each level starts every set from the same. What a mechanism has beside them stays as it was drawn.
Images keep the scale of the task's own training set: mean and deviation of the weights' first training are not read.
"""

import hashlib
import pickle
import sys
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from attnbench.models._origins import READ
from attnbench.models._timm import timm
from mechanisms import Knobs

Weights = dict[str, Tensor]
Origin = Literal["pretrained", "drawn"]
FILES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
OWN = (".mechanism.", ".adapter.")  # in the names of weights that timm's model has no place for
POSITIONS = {"hidden.weight": "0.weight", "hidden.bias": "0.bias", "head.weight": "2.weight"}


class Start(Knobs):
    """The knobs of a model that may start from weights trained elsewhere."""

    pretrained: str = ""
    """weights to start from: a file of weights named as in timm, or the name of a model on timm's hub with its tag"""
    train: Literal["all", "head", "new"] = "all"
    """which weights: all, the last layer alone on features as in evaluation, or it and all others that were drawn"""

    @model_validator(mode="after")
    def new_weights_stand_beside_old(self) -> "Start":
        if self.train == "new" and not self.pretrained:
            raise ValueError("train 'new' trains what is not pretrained, so it needs pretrained; got ''.")
        return self


class Started(nn.Module):
    """A model around timm's `net`: its weights may come from elsewhere, and some of them may be kept as they are."""

    net: Any  # a module of timm's
    probed: bool = False  # whether its last layer alone is trained

    def start(self, config: Start, head: str, of: str) -> None:
        """Loads and freezes what the knobs say; head is the name in `net` of what gives the answers."""
        self.came: frozenset[str] = frozenset()
        if config.pretrained:
            state = converted(self.net, read(config.pretrained, of), head)
            self.came = frozenset(f"net.{name}" for name in fill(self.net, state, head, of))
        self.probed, heads = config.train == "head", (f"net.{head}.", "head.")
        for name, weight in self.named_parameters():
            new = name.startswith(heads) or (config.train == "new" and name not in self.came)
            weight.requires_grad_(config.train == "all" or new)

    def train(self, mode: bool = True) -> "Started":
        super().train(mode)
        if self.probed:
            self.net.eval()
        return self

    def origin(self) -> dict[str, Origin]:
        """Of every weight, whether it came from elsewhere or was drawn from the seed."""
        return {name: "pretrained" if name in self.came else "drawn" for name, _ in self.named_parameters()}


def read(where: str, of: str) -> Weights:
    """What a file or a name of timm's hub holds. On the meta device, where only shapes count, nothing is fetched.

    Raises ValueError where there is no such file or name, and for a file that is no mapping of names to weights.
    """
    shapes_only = torch.get_default_device().type == "meta"
    if not where.endswith(FILES):
        if not timm().is_model_pretrained(where):
            raise ValueError(
                f"{of}.pretrained is a file ({', '.join(FILES)}) or a pretrained model of timm; got {where!r}."
            )
        state = timm().create_model(where, pretrained=not shapes_only).state_dict()
        if not shapes_only:
            READ[where] = content(state)
        return state
    file = Path(where).expanduser()
    if not file.is_file():
        raise ValueError(f"{of}.pretrained: there is no file {file.absolute()}.")
    with torch.device("cpu"):
        state = held(file, of)
    if not shapes_only:
        with file.open("rb") as opened:
            READ[file.name] = f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
    return {name: weight.to("meta") for name, weight in state.items()} if shapes_only else state


def content(state: Weights) -> str:
    """A hash of names, types, shapes and values, for weights that come from no single file."""
    digest = hashlib.sha256()
    for name, weight in sorted(state.items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return f"state-sha256:{digest.hexdigest()}"


def held(file: Path, of: str) -> Weights:
    """The weights in a file, also where they are wrapped with other things."""
    try:
        found: Any = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        why = str(error).split("\n")[0]
        raise ValueError(f"{of}.pretrained: {file.absolute()} is damaged, or no file of weights alone: {why}") from None
    for wrapping in ("state_dict", "model"):
        found = found[wrapping] if isinstance(found, Mapping) and wrapping in found else found
    if not isinstance(found, Mapping) or not found or not all(isinstance(item, Tensor) for item in found.values()):
        raise ValueError(f"{of}.pretrained: {file.absolute()} is no mapping of names to weights.")
    return dict(found)


def converted(net: nn.Module, state: Weights, head: str) -> Weights:
    """A state as this model would have it: timm's converter for it, if any, for other sizes of images and patches.

    A class token goes, with its position; the last norm stands before the pooling in some models, after it in others.
    """
    if hasattr(net, "num_prefix_tokens") and not net.num_prefix_tokens and "cls_token" in state:
        rows = state["pos_embed"].shape[1]
        skip = int(int((rows - 1) ** 0.5) ** 2 == rows - 1)  # some have a position for it, some none
        state = {name: weight for name, weight in state.items() if name != "cls_token"}
        state["pos_embed"] = state["pos_embed"][:, skip:]
    convert: Callable[[Weights, nn.Module], Weights] | None
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    state = dict(convert(state, net)) if convert else state
    mine = net.state_dict()
    for here, there in (("norm", "fc_norm"), ("fc_norm", "norm")):
        if f"{here}.weight" in mine and f"{here}.weight" not in state and f"{there}.weight" in state:
            state |= {f"{here}.{part}": state.pop(f"{there}.{part}") for part in ("weight", "bias")}
    ours = {name: weight.shape for name, weight in mine.items() if name.startswith(f"{head}.")}
    theirs = {name: weight.shape for name, weight in state.items() if name.startswith(f"{head}.")}
    return state if ours == theirs else {name: weight for name, weight in state.items() if name not in theirs}


def fill(net: nn.Module, state: Weights, head: str, of: str) -> set[str]:
    """Copies a state into a model and returns the names of the weights that it filled; the head may be missing.

    Raises ValueError for a state of another model: one that lacks weights, has others, or has them in other shapes.
    """
    own = net.state_dict()
    around = {name: weight for name, weight in own.items() if not any(word in name for word in OWN)}
    for name, weight in around.items():
        if name in state:
            refuse_shape(name, weight, state[name], of)
        elif not name.startswith(f"{head}."):
            raise ValueError(f"{of}.pretrained lacks {name!r}: it holds weights of another model.")
    emptied = any(name.endswith(".mechanism") for name, _ in net.named_modules())  # of timm's attention
    left = [name for name in state if name not in around and not (emptied and ".attn." in name)]
    if left:
        raise ValueError(f"{of}.pretrained holds {left[0]!r}, which this model lacks; is it of another size?")
    chosen = {name: state[name] for name in around if name in state} | inside(own, state, of)
    with torch.no_grad():
        for name, weight in chosen.items():
            own[name].copy_(weight)
    return set(chosen)


def inside(own: Weights, state: Weights, of: str) -> Weights:
    """What of timm's attentions goes into the mechanisms in their places."""
    chosen: Weights = {}
    for block, names in groupby((name for name in own if OWN[0] in name), lambda name: name.partition(OWN[0])[0]):
        parts = attention(block, state)
        for name in names:
            found = fitting(name, own[name], parts, of)
            chosen |= {} if found is None else {name: found}
    return chosen


def refuse_shape(name: str, weight: Tensor, found: Tensor, of: str) -> None:
    if weight.shape != found.shape:
        raise ValueError(f"{of}.pretrained: {name!r} is {tuple(found.shape)} there and {tuple(weight.shape)} here.")


def attention(block: str, state: Weights) -> Weights:
    """What a block's attention in timm holds, under the names that mechanisms give such weights."""
    start = f"{block}.attn."
    theirs = {name.removeprefix(start): weight for name, weight in state.items() if name.startswith(start)}
    if "qkv.weight" not in theirs:
        return {}
    found = {f"{name}.weight": part for name, part in zip("qkv", theirs["qkv.weight"].chunk(3), strict=True)}
    if "qkv.bias" in theirs:
        found |= {f"{name}.bias": part for name, part in zip("qkv", theirs["qkv.bias"].chunk(3), strict=True)}
    elif "q_bias" in theirs:
        q, v = theirs["q_bias"], theirs["v_bias"]
        found |= {"q.bias": q, "k.bias": torch.zeros_like(q), "v.bias": v}
    for part in ("weight", "bias"):
        if f"proj.{part}" in theirs:
            found[f"out.{part}"] = theirs[f"proj.{part}"]
    if "logit_scale" in theirs:
        found["logit_scale"] = theirs["logit_scale"]
        for ours, number in POSITIONS.items():
            found[f"offset_bias.{ours}"] = found[f"position.{number}"] = theirs[f"cpb_mlp.{number}"]
    return found


def fitting(name: str, weight: Tensor, parts: Weights, of: str) -> Tensor | None:
    """The part of timm's attention that a mechanism's weight is, by its last words; numbers of levels do not count."""
    rest = name.partition(OWN[0])[2]
    plain = ".".join(word for word in rest.split(".") if not word.isdigit())
    part = next((part for part in parts if any(f".{words}".endswith(f".{part}") for words in (rest, plain))), None)
    if part is None:
        return None
    if part == "logit_scale":  # its length is the number of heads, which must be that of the projections
        refuse_shape(name, weight, parts[part], of)
    return parts[part] if weight.shape == parts[part].shape else None
