"""H-Transformer's exact limits: few blocks, tokens that are alike, equal scores; and what it refuses."""

import pytest
import torch

import mechanisms
from mechanisms import Site
from tests.exact import CHANNELS, build, drawn, mixing, same

each_direction = pytest.mark.parametrize("causal", [False, True], ids=["sequence", "causal"])


def line(tokens: int, causal: bool) -> Site:
    return Site(channels=CHANNELS, shape=(tokens,), causal=causal)


@each_direction
@pytest.mark.parametrize("tokens", [8, 16])
def test_is_full_attention_on_one_block_and_on_two(tokens, causal):
    coarse, full = build("htransformer", line(tokens, causal), block=8), build("full", line(tokens, causal))
    full.load_state_dict(coarse.state_dict())
    x = drawn(2, tokens, CHANNELS)
    same(coarse(x), full(x))


@pytest.mark.parametrize("tokens", [16, 64])
def test_is_full_attention_where_tokens_that_become_one_are_alike(tokens):
    """Means of equal tokens lose nothing, so every pair is seen, once, with its own score."""
    coarse, full = build("htransformer", line(tokens, False), block=2), build("full", line(tokens, False))
    full.load_state_dict(coarse.state_dict())
    x = drawn(2, 4, CHANNELS).repeat_interleave(tokens // 4, 1)
    same(coarse(x), full(x))


@each_direction
@pytest.mark.parametrize(("tokens", "block"), [(4, 4), (32, 2), (64, 4), (48, 6)])
def test_every_pair_is_covered_exactly_once(tokens, block, causal):
    """With equal scores every token that may be seen weighs the same."""
    expected = torch.ones(tokens, tokens, dtype=torch.float64)
    expected = expected.tril() if causal else expected
    same(mixing("htransformer", line(tokens, causal), block=block), expected / expected.sum(1, keepdim=True))


@each_direction
def test_values_of_one_give_one(causal):
    """Under any scores: the levels share one normaliser, where a coarse key weighs as many tokens as it stands for."""
    coarse = build("htransformer", line(64, causal), block=4)
    coarse.get_parameter("v.weight").data.zero_()
    coarse.get_parameter("v.bias").data.fill_(1)
    expected = coarse.get_submodule("out")(torch.ones(2, 64, CHANNELS, dtype=torch.float64))
    same(coarse(drawn(2, 64, CHANNELS)), expected)


def test_the_two_halves_of_a_sequence_meet():
    """A package of the same name keeps them apart."""
    seen = mixing("htransformer", line(64, False), block=4)
    assert (seen[:32, 32:] > 0).all()
    assert (seen[32:, :32] > 0).all()


@pytest.mark.parametrize(("tokens", "block", "said"), [(24, 16, "16"), (96, 16, "64"), (8, 16, "16")])
def test_a_length_that_blocks_do_not_halve_into_is_refused(tokens, block, said):
    with pytest.raises(
        ValueError, match=rf"^htransformer needs block x 2\^k tokens, such as {said}; .* {tokens}, .*\.$"
    ):
        mechanisms.build("htransformer", line(tokens, False), block=block)
