"""Several prompts at one site by one attention: what they add is the sum of what each adds alone."""

import pytest
import torch
from image_prompt.ipadapter_core import stacking
from image_prompt.ipadapter_core.attention import COND, EVERY_STEP, UNCOND, SiteResidual, Step
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.masking import Region
from image_prompt.ipadapter_core.stacking import Stack, stacks

HEADS, WIDTH, SIZE = 2, 16, (4, 6)
N = SIZE[0] * SIZE[1]
LAYOUTS = [(COND,), (UNCOND,), (UNCOND, COND), (COND, COND, UNCOND)]


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prompt(seed, rows=1, uncond=1, tokens=5, weight=0.8, mask=None, **more):
    shape = rows + uncond, tokens, WIDTH
    keys, values = randn(*shape, seed=seed), randn(*shape, seed=seed + 100)
    return SiteResidual(keys, values, rows, weight, mask, **more)


def soft_mask(seed, count=1):
    return torch.rand(count, 8, 12, generator=torch.Generator().manual_seed(seed))


def one_by_one(prompts, out, q, chunks, step=EVERY_STEP):
    for each in prompts:
        out = each.add_to(out, q, HEADS, chunks, SIZE, step=step)
    return out


def together(prompts, out, q, chunks, step=EVERY_STEP):
    assert stacks([(each, step.factor) for each in prompts], q) == [[*range(len(prompts))]]
    return Stack(prompts).add_to(out, q, HEADS, chunks, SIZE, step=step)


def close(a, b, atol=2e-6):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@pytest.mark.parametrize("chunks", LAYOUTS, ids=str)
@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize(
    "kind", ["plain", "masks", "masks each", "images each", "weights each", "no uncond", "uneven lengths"]
)
def test_it_is_the_sum_of_each(chunks, pictures, kind):
    each = [
        {
            "plain": lambda n: prompt(n, weight=0.4 * n - 0.3),
            "masks": lambda n: prompt(n, mask=None if n == 1 else soft_mask(n)),
            "masks each": lambda n: prompt(n, mask=soft_mask(n, pictures if n else 1)),
            "images each": lambda n: prompt(n, rows=pictures, uncond=pictures if n else 1),
            "weights each": lambda n: prompt(n, weight=torch.tensor([0.1, 0.7, 2.0])[:pictures]),
            "no uncond": lambda n: prompt(n, uncond=0),
            "uneven lengths": lambda n: prompt(n, lengths=(5, 2)),
        }[kind](n)
        for n in range(4)
    ]
    out, q = (randn(len(chunks) * pictures, N, WIDTH, seed=seed) for seed in (50, 51))
    step = Step(factor=0.7)
    expected = one_by_one(each, out, q, chunks, step)
    close(together(each, out, q, chunks, step), expected)
    # the second time from what is kept, and in any order
    close(together(each, out, q, chunks, step), expected)
    close(together(each[::-1], out, q, chunks, step), expected)
    own = out.clone()
    close(together(each, own, q, chunks, step._replace(in_place=True)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_near_full(dtype):
    each = [prompt(n, mask=soft_mask(n)) for n in range(4)]
    out, q = randn(2, N, WIDTH, seed=50), randn(2, N, WIDTH, seed=51)
    low = together(each, out.to(dtype), q.to(dtype), (UNCOND, COND))
    assert low.dtype == dtype
    close(low.float(), one_by_one(each, out, q, (UNCOND, COND)), 0.05)


def test_a_conditioning_alone_is_its_part_of_the_pair():
    each = [prompt(n, mask=soft_mask(n)) for n in range(3)]
    out, q = randn(4, N, WIDTH, seed=50), randn(4, N, WIDTH, seed=51)
    pair = together(each, out, q, (UNCOND, COND))
    for part, role in ((slice(2), UNCOND), (slice(2, None), COND)):
        close(together(each, out[part], q[part], (role,)), pair[part])


def test_masks_of_0_change_nothing_and_rows_left_out_are_whole():
    out, q = randn(2, N, WIDTH, seed=50), randn(2, N, WIDTH, seed=51)
    black = [prompt(n, mask=torch.zeros(1, 8, 12)) for n in range(3)]
    assert torch.equal(together(black, out, q, (UNCOND, COND)), out)
    got = together([prompt(n, uncond=0) for n in range(3)], out, q, (UNCOND, COND))
    assert torch.equal(got[0], out[0])
    assert not torch.equal(got[1], out[1])


def test_gradients_reach_queries_and_what_is_there():
    each = [prompt(n, mask=soft_mask(n)) for n in range(3)]
    grads = []
    for add in (one_by_one, together):
        out, q = (randn(2, N, WIDTH, seed=seed).requires_grad_() for seed in (50, 51))
        add(each, out, q, (UNCOND, COND), Step(in_place=True)).square().sum().backward()
        grads.append((out.grad, q.grad))
    for ours, expected in zip(*grads, strict=True):
        close(ours, expected, 2e-5)


def test_each_of_a_stack_is_seen_as_it_is_alone():
    each = [prompt(n, mask=soft_mask(n) if n else None) for n in range(3)]
    out, q = randn(2, N, WIDTH, seed=50), randn(2, N, WIDTH, seed=51)
    alone, seen = [], []

    def note(where):
        return Step(
            factor=0.5,
            observer=lambda z, weights, factor: where.append(
                (z.clone(), 1.0 if weights is None else weights.clone(), factor)
            ),
        )

    one_by_one(each, out, q, (UNCOND, COND), note(alone))
    together(each, out, q, (UNCOND, COND), note(seen))
    ((z, weights, factor),) = seen
    for number, (own, of, by) in enumerate(alone):
        close(z[number], own)
        close(weights[number] * torch.ones(N, 1), of * torch.ones(1, N, 1))
        assert factor == by


def test_those_go_together_that_have_one_layout():
    q = randn(2, N, WIDTH)
    few, many, masked = prompt(0), prompt(1, tokens=16), prompt(2, mask=soft_mask(1))
    one_sided, each = prompt(3, uncond=0), prompt(4, rows=2)
    older = prompt(5, mask=Region(soft_mask(2), sqrt_grid=True))
    acting = [(site, 1.0) for site in (few, many, masked, one_sided, each, few, older, few)]
    assert stacks(acting, q) == [[0, 2, 5, 7], [1], [3], [4], [6]]
    # other factors, or fewer than pay
    assert stacks([(few, 1.0), (few, 0.5), (few, 1.0), (few, 0.5)], q) == [[0], [2], [1], [3]]
    # so many at once
    assert stacks([(few, 1.0)] * 7, q) == [[0, 1, 2, 3], [4, 5, 6]]


def test_large_sites_on_a_cpu_go_one_by_one():
    q = torch.empty(2, 4096, 320)
    acting = [(prompt(n), 1.0) for n in range(4)]
    assert stacks(acting, q) == [[0], [1], [2], [3]]
    assert stacks(acting, q.to("meta")) == [[0, 1, 2, 3]]


def test_an_error_about_one_of_a_stack_names_that_one():
    each = [prompt(0, rows=2), prompt(1, rows=3), prompt(2, rows=2)]
    q = randn(2, N, WIDTH)
    with pytest.raises(MismatchError, match=r"^the second node: the image prompt has 3 images"):
        Stack(each, ["the first node", "the second node", "the third"]).add_to(q, q, HEADS, (COND,), SIZE)


def test_ready_made_tensors_are_kept_once_and_forgotten():
    each = [prompt(n, mask=soft_mask(n)) for n in range(3)]
    out, q = randn(2, N, WIDTH, seed=50), randn(2, N, WIDTH, seed=51)
    for _ in range(2):
        together(each, out, q, (UNCOND, COND))
    assert [len(site.ready) for site in each] == [1, 0, 0]
    ((keys, values, _),) = each[0].ready.values()
    assert keys.shape == values.shape == (3 * 2, HEADS, 5, WIDTH // HEADS)
    for site in each:
        site.forget()
    assert not any(site.ready or site.masks for site in each)


def test_few_prompts_take_few_operations(monkeypatch):
    """Attention, the sum, adding it; with two conditionings the queries are laid side by side, masks are one more."""
    calls = []
    attend = stacking.image_attention
    monkeypatch.setattr(stacking, "image_attention", lambda *args: calls.append(1) or attend(*args))
    out, q = randn(2, N, WIDTH, seed=50), randn(2, N, WIDTH, seed=51)
    together([prompt(n) for n in range(4)], out, q, (UNCOND, COND))
    assert calls == [1]
