"""What stands on the negative side: nothing, as the adapters were trained with, or a picture."""

import pytest
import torch
from support import tiny
from support.parity import KINDS, LIMIT, make_batch, max_error, run_host


@pytest.mark.parametrize("kind", KINDS)
def test_a_negative_image_replaces_no_image(twins, kind):
    adapter, batch = twins.adapter(kind), make_batch(twins.family)
    picture, negative = tiny.picture(seed=13), tiny.picture(seed=14)
    oracle = twins.oracle.load(adapter.tensors)
    prompt = twins.encode(adapter, picture, negative_image=negative)
    ours = run_host(twins.apply(prompt), batch)
    theirs = oracle(batch, [twins.embeds(kind, batch, picture, negative)])
    assert max_error(ours, theirs, f"negative image {kind} {twins.family.name}") <= LIMIT


def test_three_images_against_two_negatives(twins):
    """Softmax over keys that are all repeated equally often is the same softmax, so the counts need not agree."""
    adapter, batch = twins.adapter("base"), make_batch(twins.family)
    pictures, negatives = tiny.picture(seed=15, count=3), tiny.picture(seed=16, count=2)
    oracle = twins.oracle.load(adapter.tensors)
    prompt = twins.encode(adapter, pictures, negative_image=negatives)
    reference = twins.reference_encoder
    against = reference.images("base", negatives).repeat(3, 1)
    positive = reference.images("base", pictures).repeat(2, 1)
    theirs = oracle(batch, [torch.stack((against, positive))])
    error = max_error(run_host(twins.apply(prompt), batch), theirs, f"3 against 2 {twins.family.name}")
    assert error <= LIMIT


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_is_not_a_black_image(twins, kind):
    adapter, picture = twins.adapter(kind), tiny.picture(seed=17)
    batch = make_batch(twins.family, chunks=(1,))
    oracle = twins.oracle.load(adapter.tensors)
    black = twins.embeds(kind, batch, picture, torch.zeros_like(picture))
    ours = run_host(twins.apply(twins.encode(adapter, picture)), batch)
    assert max_error(ours, oracle(batch, [black]), f"black image {kind} {twins.family.name}") > 100 * LIMIT
