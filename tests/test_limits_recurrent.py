"""Sliding windows, gated linear attention and DeltaNet where they are something else, and against plain public code."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mechanisms
from mechanisms import Site
from mechanisms._recurrent import states
from tests.exact import CHANNELS, build, differ, drawn, mixing, same
from tests.test_limits_linear import naive

CAUSAL = Site(channels=CHANNELS, shape=(150,), causal=True)
STATEFUL = ["gla", "deltanet"]


def call(mechanism: nn.Module, method: str, *tensors: Tensor) -> Any:
    return getattr(mechanism, method)(*tensors)


def gates(mechanism: nn.Module, logit: float) -> None:
    """Lets every forget gate be the sixteenth root of sigmoid(logit), whatever the token."""
    weights = mechanism.state_dict()
    mechanism.load_state_dict(
        {
            "forget.1.weight": torch.zeros_like(weights["forget.1.weight"]),
            "forget.1.bias": torch.full_like(weights["forget.1.bias"], logit),
        },
        strict=False,
    )


@pytest.mark.parametrize(("window", "sinks"), [(150, 0), (151, 4), (600, 1), (100, 50), (1, 149), (1, 1000)])
def test_a_window_that_reaches_all_with_its_sinks_is_full_causal_attention(window, sinks):
    full, sliding = build("full", CAUSAL), build("sliding", CAUSAL, window=window, sinks=sinks)
    sliding.load_state_dict(full.state_dict())
    x = drawn(2, 150, CHANNELS)
    same(sliding(x), full(x))


def test_a_window_that_does_not_reach_all_is_not():
    full, sliding = build("full", CAUSAL), build("sliding", CAUSAL, window=100, sinks=49)
    sliding.load_state_dict(full.state_dict())
    x = drawn(2, 150, CHANNELS)
    same(sliding(x)[:, :149], full(x)[:, :149])
    assert not sliding(x)[:, 149].equal(full(x)[:, 149])
    differ(build("sliding", CAUSAL, window=8)(x), full(x))


@pytest.mark.parametrize("sinks", [0, 1, 4, 40])
@pytest.mark.parametrize("window", [1, 2, 31, 32, 33, 64])
def test_a_token_sees_itself_the_last_of_its_window_and_all_sinks_each_once(window, sinks):
    tokens = 150
    weights = mixing("sliding", CAUSAL, window=window, sinks=sinks)
    for i in range(tokens):
        seen = set(range(max(0, i - window + 1), i + 1)) | set(range(min(sinks, i + 1)))
        assert set(weights[i].nonzero().flatten().tolist()) == seen
        assert len(seen) == min(i + 1, window + min(sinks, max(0, i - window + 1)))
        same(weights[i, sorted(seen)], torch.full((len(seen),), 1 / len(seen), dtype=torch.float64))


# Gated linear attention and DeltaNet: both forms, and the tree that joins chunks.


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 33, 49, 64, 65, 81, 97, 113, 129, 150, 200, 330, 400])
@pytest.mark.parametrize("name", STATEFUL)
def test_parallel_and_recurrent_form_are_one(name, tokens):
    mechanism, x = build(name, CAUSAL), drawn(2, tokens, CHANNELS)
    same(mechanism(x), call(mechanism, "recurrent", x))


@pytest.mark.parametrize("chunks", range(1, 18))
def test_the_tree_of_chunks_is_the_loop_over_chunks(chunks):
    decay, added = drawn(1, 1, chunks, 3, 3), drawn(1, 1, chunks, 3, 2, seed=1)
    state = torch.zeros(3, 2, dtype=torch.float64)
    for i, found in enumerate(states(decay, added, torch.matmul)[0, 0]):
        torch.testing.assert_close(found, state, rtol=1e-9, atol=1e-9 * float(state.abs().max() + 1))
        state = decay[0, 0, i] @ state + added[0, 0, i]


@pytest.mark.parametrize("logit", [1e4, -1e4, -1e6])
def test_gates_that_are_open_or_shut_stay_finite_in_float32(logit):
    mechanism = build("gla", CAUSAL).float()
    gates(mechanism, logit)
    x = drawn(1, 150, CHANNELS).float().requires_grad_()
    y = mechanism(x)
    y.sum().backward()
    assert x.grad is not None
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    torch.testing.assert_close(y, call(mechanism, "recurrent", x), rtol=1e-3, atol=1e-3)


def pairs_of(mechanism: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """q_i . k_j / sqrt(d) for all pairs, and the values."""
    q, k, v, _ = call(mechanism, "parts", x)
    return q @ k.mT, v


def test_open_gates_make_gla_an_unnormalised_linear_attention():
    mechanism, x = build("gla", CAUSAL, output="plain"), drawn(2, 150, CHANNELS)
    gates(mechanism, 1e4)
    pairs, v = pairs_of(mechanism, x)
    same(mechanism(x), call(mechanism, "joined", pairs.tril() @ v, x))


def test_shut_gates_make_gla_see_only_the_token_itself():
    mechanism, x = build("gla", CAUSAL, output="plain"), drawn(2, 150, CHANNELS)
    gates(mechanism, -1e6)
    pairs, v = pairs_of(mechanism, x)
    same(mechanism(x), call(mechanism, "joined", pairs.diagonal(dim1=2, dim2=3).unsqueeze(-1) * v, x))


@pytest.mark.parametrize("temperature", [1, 16])
def test_constant_gates_make_gla_forget_geometrically(temperature):
    mechanism, x = build("gla", CAUSAL, output="plain", temperature=temperature), drawn(2, 150, CHANNELS)
    gates(mechanism, 0.0)
    pairs, v = pairs_of(mechanism, x)
    age = torch.arange(150).unsqueeze(1) - torch.arange(150)
    kept = torch.where(age < 0, 0.0, 0.5 ** (age.clamp(min=0).double() / temperature))
    same(mechanism(x), call(mechanism, "joined", pairs * kept @ v, x))


def test_the_gated_output_is_the_plain_one_after_a_norm_and_a_gate():
    gated, plain, x = build("gla", CAUSAL), build("gla", CAUSAL, output="plain"), drawn(2, 150, CHANNELS)
    eye = {"out.weight": torch.eye(CHANNELS), "out.bias": torch.zeros(CHANNELS)}
    for mechanism in (gated, plain):
        mechanism.load_state_dict({**gated.state_dict(), **eye}, strict=False)
    heads = plain(x).unflatten(-1, (2, -1))
    heads = heads / (heads.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gated.state_dict()["norm.weight"]
    gate = call(gated, "gate", x)
    same(gated(x), heads.flatten(2) * gate * gate.sigmoid())


def core(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """The sums of deltanet for one head, from [n, d] and [n]."""
    return call(
        build("deltanet", CAUSAL), "sums", q[None, None], k[None, None], v[None, None], beta[None, None, :, None]
    )[0, 0]


def unit(*shape: int) -> Tensor:
    return nn.functional.normalize(drawn(*shape), dim=-1)


def test_deltanet_reads_back_what_it_just_stored_in_full():
    k, v = unit(150, 4), drawn(150, 4, seed=1)
    same(core(k, k, v, torch.ones(150, dtype=torch.float64)), v)


def test_deltanet_replaces_what_an_equal_key_held():
    """Under four orthogonal keys, in turn: a query reads the last value of its key and nothing of the others."""
    k = torch.eye(4, dtype=torch.float64).repeat(40, 1)[:150]
    v, ones = drawn(150, 4, seed=1), torch.ones(150, dtype=torch.float64)
    q = k.roll(1, 0)  # the key of the token before
    same(core(q, k, v, ones)[1:], v[:-1])


def test_deltanet_keeps_a_part_of_what_was_there_where_beta_is_below_one():
    k, v = torch.eye(4, dtype=torch.float64)[:1].expand(150, 4), drawn(150, 4, seed=1)
    expected, rows = torch.zeros(4, dtype=torch.float64), []
    for value in v:
        expected = 0.75 * expected + 0.25 * value
        rows.append(expected)
    same(core(k, k, v, torch.full((150,), 0.25, dtype=torch.float64)), torch.stack(rows))


def test_deltanet_with_beta_zero_stores_nothing():
    mechanism, x = build("deltanet", CAUSAL), drawn(2, 150, CHANNELS)
    mechanism.load_state_dict({"beta.weight": torch.zeros(2, CHANNELS), "beta.bias": torch.full((2,), -1e4)}, False)
    same(mechanism(x), mechanism.state_dict()["out.bias"].expand(2, 150, -1))


def test_the_lengths_of_deltanets_keys_and_queries_do_not_matter():
    mechanism, x = build("deltanet", CAUSAL), drawn(1, 150, CHANNELS)
    q, k, *_ = call(mechanism, "parts", x)
    same(k.square().sum(-1), torch.ones_like(k[..., 0]))
    same(q.square().sum(-1), torch.full_like(q[..., 0], 1 / (CHANNELS // 2)))


# Against flash-linear-attention's plain torch operations, which work in float32 whatever comes.


@pytest.mark.parametrize("output", ["gated", "plain"])
def test_gla_is_flash_linear_attentions_plain_form(output):
    mechanism, x = build("gla", CAUSAL, output=output).float(), drawn(2, 150, CHANNELS).float()
    q, k, v, log_a = (t.transpose(1, 2) for t in call(mechanism, "parts", x))
    y, _ = naive("ops/gla/naive.py").naive_recurrent_gla(q * (CHANNELS // 2) ** 0.5, k, v, log_a)
    torch.testing.assert_close(call(mechanism, "joined", y.transpose(1, 2), x), mechanism(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["delta_rule_recurrence", "delta_rule_chunkwise"])
def test_deltanet_is_flash_linear_attentions_plain_forms(form):
    mechanism, x = build("deltanet", CAUSAL).float(), drawn(2, 160, CHANNELS).float()
    q, k, v, beta = call(mechanism, "parts", x)
    y, _ = getattr(naive("ops/delta_rule/naive.py"), form)(q * (CHANNELS // 2) ** 0.5, k, v, beta.squeeze(-1))
    torch.testing.assert_close(call(mechanism, "joined", y, x), mechanism(x), rtol=1e-4, atol=1e-4)


# The kernels themselves run on CUDA alone. What is handed to them is tried with plain forms in their place.


def stand_in(monkeypatch: pytest.MonkeyPatch, path: str, **operations: Any) -> None:
    """Puts a package `fla` with these operations where an import looks first."""
    for name in ("fla", "fla.ops", path):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name, operation in operations.items():
        monkeypatch.setattr(sys.modules[path], name, operation, raising=False)


def chunk_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, scale: float) -> tuple[Tensor, None]:
    """The layout and the meaning of flash-linear-attention's operation [B, T, H, D], token by token."""
    state, rows = torch.zeros(*k.shape[:1], *k.shape[2:], v.shape[-1], dtype=k.dtype), []
    for i in range(q.shape[1]):
        state = state * g[:, i].exp().unsqueeze(-1) + k[:, i].unsqueeze(-1) * v[:, i].unsqueeze(-2)
        rows.append(scale * (q[:, i].unsqueeze(-1) * state).sum(-2))
    return torch.stack(rows, 1), None


def chunk_delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, scale: float) -> tuple[Tensor, None]:
    """The same of its delta rule, with beta [B, T, H]; it takes no float32."""
    assert {t.dtype for t in (q, k, v, beta)} <= {torch.float16, torch.bfloat16}
    q, k, v, beta = (t.double() for t in (q, k, v, beta))
    state, rows = torch.zeros(*k.shape[:1], *k.shape[2:], v.shape[-1], dtype=k.dtype), []
    for i in range(q.shape[1]):
        held = (state * k[:, i].unsqueeze(-1)).sum(-2)
        state = state + k[:, i].unsqueeze(-1) * (beta[:, i].unsqueeze(-1) * (v[:, i] - held)).unsqueeze(-2)
        rows.append(scale * (q[:, i].unsqueeze(-1) * state).sum(-2))
    return torch.stack(rows, 1).bfloat16(), None


def twins(monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[nn.Module, nn.Module]:
    """A mechanism, and the same weights in its form on the package's kernels."""
    monkeypatch.setattr(type(mechanisms.find(f"{name}_fla")), "absence", lambda *_: None)
    one, other = build(name, CAUSAL), build(f"{name}_fla", CAUSAL)
    other.load_state_dict(one.state_dict())
    return one, other


def test_gla_fla_hands_its_kernel_what_gla_computes_with(monkeypatch):
    stand_in(monkeypatch, "fla.ops.gla", chunk_gla=chunk_gla)
    plain, kernel = twins(monkeypatch, "gla")
    x = drawn(2, 150, CHANNELS)
    same(kernel(x), plain(x))


def test_deltanet_fla_hands_its_kernel_what_deltanet_computes_with(monkeypatch):
    stand_in(monkeypatch, "fla.ops.delta_rule", chunk_delta_rule=chunk_delta_rule)
    plain, kernel = twins(monkeypatch, "deltanet")
    x = drawn(2, 150, CHANNELS)
    y = kernel(x)
    assert y.dtype == x.dtype
    assert float(((y - plain(x)).norm() / plain(x).norm()).detach()) < 0.05


@pytest.mark.parametrize("name", STATEFUL)
def test_the_kernels_stand_beside_the_plain_form_and_need_cuda(name):
    entry = mechanisms.find(f"{name}_fla")
    assert (entry.reference, entry.needs, entry.devices) == (name, "fla", ("cuda",))
    assert entry.absence("cpu") == f"{name}_fla runs on cuda only; got cpu."
    assert entry.config is mechanisms.find(name).config
