"""The harness itself: without an adapter both UNets are the same function, so later errors are the adapter's."""

import pytest
from support.parity import LIMIT, make_batch, max_error, run_host


@pytest.mark.parametrize("size", [(16, 16), (24, 40)], ids=["square", "24x40"])
def test_the_converted_unet_is_the_same_function_in_the_host(twins, size):
    batch = make_batch(twins.family, size=size)
    ours, theirs = run_host(twins.model, batch), twins.oracle.load()(batch)
    assert max_error(ours, theirs, f"base {twins.family.name} {size}") <= LIMIT


def test_the_host_takes_over_every_weight(twins):
    converted = twins.oracle.host_state_dict()
    assert set(converted) == set(twins.model.get_model_object("diffusion_model").state_dict())
