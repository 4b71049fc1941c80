"""Full attention on a kernel chosen by name: the same numbers, or a refusal that names it; never another kernel."""

import pytest
import torch

import mechanisms
from attnbench.flops import formulas
from mechanisms import Site
from tests.exact import CHANNELS, build, drawn, same

SITES = [Site(channels=CHANNELS, shape=(9,)), Site(channels=CHANNELS, shape=(9,), causal=True)]
sites = pytest.mark.parametrize("site", SITES, ids=lambda site: site.setting)


@sites
@pytest.mark.parametrize("backend", ["math", "flash"])
def test_a_kernel_that_a_cpu_has_gives_the_same_numbers(site, backend):
    named, free = build("full", site, backend=backend), build("full", site)
    free.load_state_dict(named.state_dict())
    same(named(drawn(2, 9, CHANNELS)), free(drawn(2, 9, CHANNELS)))


@sites
@pytest.mark.parametrize("backend", ["efficient", "cudnn"])
def test_a_kernel_that_a_cpu_lacks_is_refused_by_name(site, backend):
    with pytest.raises(ValueError, match=rf"^full\.backend {backend} cannot run on float64 on cpu with 4 channels"):
        build("full", site, backend=backend)(drawn(2, 9, CHANNELS))


def test_the_named_kernel_is_the_one_that_runs():
    x = drawn(1, 9, CHANNELS)
    for backend, operation in (
        ("math", "aten::_scaled_dot_product_attention_math"),
        ("flash", "flash_attention_for_cpu"),
    ):
        with torch.profiler.profile() as record:
            build("full", SITES[0], backend=backend)(x)
        assert any(operation in str(event.name) for event in record.events() or [])


def test_another_error_is_not_taken_for_a_missing_kernel():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        build("full", SITES[0], backend="math")(drawn(1, 9, CHANNELS + 1))


def test_xformers_is_named_as_the_mechanism_that_it_is():
    with pytest.raises(ValueError, match="full_xformers"):
        mechanisms.build("full", SITES[0], backend="xformers")


@pytest.mark.parametrize("backend", ["auto", "math", "cudnn"])
def test_work_is_counted_whatever_the_kernel(backend):
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False, custom_mapping=formulas()) as counter:
        mechanisms.build("full", Site(channels=64, shape=(256,)), backend=backend)(torch.empty(1, 256, 64))
    assert counter.get_total_flops() == 4 * 2 * 256 * 64**2 + 4 * 256**2 * 64
