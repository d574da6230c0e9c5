"""ImagePrompt: how pictures become tokens for (cond, uncond), and tokens K'/V'."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from core.small import CONTEXT, WIDTHS, adapter, naive_attention, randn
from image_prompt.ipadapter_core.attention import COND, UNCOND, SiteResidual
from image_prompt.ipadapter_core.combine import Combine, combine
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.ipadapter_core.prompt import Arrange, ImagePrompt, make_prompt
from torch import Tensor

T = 4  # tokens of one image


def prompt(images: int = 1, negatives: int = 1, seed: int = 0, **options: object) -> ImagePrompt:
    cond, uncond = randn(images, T, CONTEXT, seed=seed), randn(negatives, T, CONTEXT, seed=99)
    return make_prompt(adapter(), cond, uncond, **options)


def attended(made: ImagePrompt, site: int = 1) -> Tensor:
    """What the rows of cond and those of uncond add at a site, in one call: (2 · rows, queries, width)."""
    residual = SiteResidual(*made.keys_values[site], made.rows, 1.0, lengths=made.lengths)
    q = randn(1, 6, WIDTHS[site], seed=5).expand(2 * made.rows, -1, -1)
    return residual.add_to(torch.zeros_like(q), q, 1, (COND, UNCOND), None)


def attended_tokens(tokens: Tensor, site: int = 1) -> Tensor:
    """The same of plain tokens (n, t, d), without an ImagePrompt."""
    keys, values = adapter().keys_values(tokens)[site]
    return naive_attention(randn(1, 6, WIDTHS[site], seed=5), keys, values)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=5e-6, rtol=0)


# --- pictures to tokens ------------------------------------------------------------------------------------------


def test_together_lays_all_images_end_to_end_in_one_row():
    made = prompt(images=3, negatives=2)
    assert (made.rows, made.cond.shape, made.uncond.shape) == (1, (1, 3 * T, CONTEXT), (1, 2 * T, CONTEXT))
    assert torch.equal(made.cond[0], randn(3, T, CONTEXT).flatten(0, 1))
    assert torch.equal(made.value_scale, torch.ones(1, 3 * T))


@pytest.mark.parametrize("negatives", [1, 3])
def test_one_each_gives_every_picture_its_own_row(negatives: int):
    made = prompt(images=3, negatives=negatives, arrange=Arrange.ONE_EACH)
    assert (made.rows, made.uncond.shape[0]) == (3, negatives)
    assert torch.equal(made.cond, randn(3, T, CONTEXT))
    for row in range(3):
        alone = make_prompt(adapter(), randn(3, T, CONTEXT)[row : row + 1], made.uncond[:1])
        close(attended(made)[row], attended(alone)[0])


def test_the_order_of_images_together_does_not_matter():
    cond, uncond = randn(3, T, CONTEXT), randn(1, T, CONTEXT, seed=1)
    ways = [make_prompt(adapter(), cond[order], uncond) for order in ([0, 1, 2], [2, 0, 1])]
    close(attended(ways[0]), attended(ways[1]))


def test_tokens_are_kept_in_fp32_without_a_graph():
    cond = randn(1, T, CONTEXT).half().requires_grad_(True)
    made = make_prompt(adapter(), cond, randn(1, T, CONTEXT))
    assert {t.dtype for t in (made.cond, made.uncond, made.value_scale)} == {torch.float32}
    assert not made.cond.requires_grad


def test_a_prompt_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        prompt().cond = torch.zeros(1)


# --- image weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrange", Arrange)
@pytest.mark.parametrize(
    ("weights", "each"), [((), [1, 1, 1]), ((0.5,), [0.5] * 3), ((2, 0, -1), [2, 0, -1])]
)
def test_an_image_weight_scales_the_values_of_its_own_tokens(arrange, weights, each):
    plain, weighted = (prompt(3, arrange=arrange, image_weights=w) for w in ((), weights))
    scale = torch.tensor(each, dtype=torch.float32).repeat_interleave(T)
    rows = plain.rows
    for (k0, v0), (k1, v1) in zip(plain.keys_values, weighted.keys_values, strict=True):
        assert torch.equal(k1, k0)
        expected = v0[:rows].flatten(0, 1)[: 3 * T] * scale[:, None]
        close(v1[:rows].flatten(0, 1)[: 3 * T], expected)
        assert torch.equal(v1[rows:], v0[rows:])


def test_the_weight_of_a_single_image_scales_what_it_adds_and_not_no_image():
    plain, weighted = prompt(), prompt(image_weights=(0.3,))
    close(attended(weighted)[0], attended(plain)[0] * 0.3)
    close(attended(weighted)[1], attended(plain)[1])


@pytest.mark.parametrize("weights", [(1, 2), (1, 2, 3, 4)])
def test_image_weights_that_do_not_match_the_images_are_refused(weights: tuple[float, ...]):
    with pytest.raises(MismatchError, match=f"{len(weights)} image weights for 3 images"):
        prompt(3, image_weights=weights)


def test_negatives_that_do_not_match_the_pictures_are_refused():
    with pytest.raises(MismatchError, match="3 images, one per picture, came with 2 negative images"):
        prompt(3, negatives=2, arrange=Arrange.ONE_EACH)


# --- tokens to K'/V' ---------------------------------------------------------------------------------------------


def test_keys_and_values_are_computed_once_and_only_when_needed():
    made = prompt()
    assert made.adapter.computed == 0
    first = made.keys_values
    assert made.keys_values is first
    assert made.adapter.computed == 1


@pytest.mark.parametrize(
    ("images", "negatives", "length"),
    [(1, 1, T), (3, 1, 3 * T), (1, 2, 2 * T), (3, 2, 3 * T), (2, 3, 3 * T), (2, 2, 2 * T)],
)
def test_each_side_attends_to_its_own_tokens_whatever_the_other_has(images: int, negatives: int, length: int):
    made = prompt(images, negatives)
    assert {k.shape[:2] for k, _ in made.keys_values} == {(2, length)}
    for site in range(len(WIDTHS)):
        close(attended(made, site)[:1], attended_tokens(made.cond, site))
        close(attended(made, site)[1:], attended_tokens(made.uncond, site))


@pytest.mark.parametrize(("images", "negatives"), [(3, 2), (2, 3)])
@pytest.mark.parametrize("role", [COND, UNCOND])
def test_a_side_alone_attends_to_its_own_tokens_too(images: int, negatives: int, role: int):
    made = prompt(images, negatives)
    residual = SiteResidual(*made.keys_values[1], made.rows, 1.0, lengths=made.lengths)
    q = randn(1, 6, WIDTHS[1], seed=5)
    own = made.uncond if role == UNCOND else made.cond
    close(residual.add_to(torch.zeros_like(q), q, 1, (role,), None), attended_tokens(own, 1))


def test_the_cost_of_unequal_counts_is_the_larger_not_their_common_multiple():
    made = ImagePrompt(adapter(), randn(1, 997, CONTEXT), randn(1, 991, CONTEXT), torch.ones(1, 997))
    assert {k.shape[:2] for k, _ in made.keys_values} == {(2, 997)}


def test_repeated_tokens_keep_their_own_weights():
    together, alone = (prompt(2, negatives, image_weights=(1, 0.25)) for negatives in (3, 1))
    close(attended(together)[0], attended(alone)[0])


# --- combining ---------------------------------------------------------------------------------------------------

W = (0.5, 2.0, -0.25)


def three(arrange: Arrange = Arrange.TOGETHER, images: int = 1) -> list[ImagePrompt]:
    return [prompt(images, seed=seed, arrange=arrange) for seed in range(3)]


def _arithmetic(method: Combine, tokens: list[Tensor]) -> Tensor:
    a, b, c = tokens
    x, y, z = W
    return {
        Combine.ADD: a * x + b * y + c * z,
        Combine.SUBTRACT: a * x - b * y - c * z,
        Combine.AVERAGE: (a * x + b * y + c * z) / (x + y + z),
    }[method]


@pytest.mark.parametrize("arrange", Arrange)
@pytest.mark.parametrize("method", [Combine.ADD, Combine.SUBTRACT, Combine.AVERAGE])
def test_arithmetic_is_that_of_the_tokens(method: Combine, arrange: Arrange):
    prompts = three(arrange, images=2)
    made = combine(prompts, method, W)
    close(made.cond, _arithmetic(method, [p.cond for p in prompts]))
    close(made.uncond, prompts[0].uncond)
    assert torch.equal(made.value_scale, torch.ones(made.cond.shape[:2]))


def test_norm_average_has_the_direction_of_the_average_and_the_mean_length():
    prompts, weights = three(), (1.0, 2.0, 3.0)
    made = combine(prompts, Combine.NORM_AVERAGE, weights).cond
    average = combine(prompts, Combine.AVERAGE, weights).cond
    close(torch.cosine_similarity(made, average, dim=-1), torch.ones(1, T))
    lengths = [p.cond.norm(dim=-1) * w / 6 for p, w in zip(prompts, weights, strict=True)]
    close(made.norm(dim=-1), lengths[0] + lengths[1] + lengths[2])


@pytest.mark.parametrize("method", [Combine.AVERAGE, Combine.NORM_AVERAGE])
def test_the_average_of_a_prompt_with_itself_is_itself(method: Combine):
    close(combine([prompt()] * 3, method, (1, 1, 1)).cond, prompt().cond)
    close(combine([prompt()] * 3, method, (5, 5, 5)).cond, prompt().cond)


def test_weights_of_images_take_part_in_arithmetic():
    made = combine([prompt(2, image_weights=(1, 0.5)), prompt(2, seed=1)], Combine.ADD, (1, 1))
    a, b = prompt(2), prompt(2, seed=1)
    close(made.cond[:, :T], a.cond[:, :T] + b.cond[:, :T])
    close(made.cond[:, T:], a.cond[:, T:] * 0.5 + b.cond[:, T:])


def test_concat_keeps_the_tokens_of_each_and_weights_what_each_adds():
    prompts = three()
    made = combine(prompts, Combine.CONCAT, W)
    assert torch.equal(made.cond, torch.cat([p.cond for p in prompts], dim=1))
    assert torch.equal(made.value_scale[0], torch.tensor(W).repeat_interleave(T))
    close(attended(made)[1], attended(prompts[0])[1])


def test_concat_multiplies_weights_of_prompts_and_of_images():
    made = combine([prompt(2, image_weights=(1, 0.5)), prompt(1, seed=1)], Combine.CONCAT, (2, 3))
    assert made.value_scale[0, ::T].tolist() == [2, 1, 3]


@pytest.mark.parametrize("copies", [2, 3])
def test_an_image_twice_in_concat_is_the_image_once(copies: int):
    made = combine([prompt()] * copies, Combine.CONCAT, (1,) * copies)
    close(attended(made), attended(prompt()))


@pytest.mark.parametrize("method", Combine)
def test_a_single_image_joins_every_picture_of_a_batch(method: Combine):
    batch = prompt(3, negatives=3, arrange=Arrange.ONE_EACH)
    made = combine([batch, prompt(seed=1)], method, (1, 1))
    assert (made.rows, made.uncond.shape[0], made.value_scale.shape) == (3, 3, made.cond.shape[:2])
    for row in range(3):
        one = make_prompt(adapter(), batch.cond[row : row + 1], batch.uncond[row : row + 1])
        alone = combine([one, prompt(seed=1)], method, (1, 1))
        close(attended(made)[row], attended(alone)[0])


@pytest.mark.parametrize("method", Combine)
def test_combining_leaves_its_parts_as_they_were(method: Combine):
    prompts = three()
    before = [(p.cond.clone(), p.uncond.clone(), p.value_scale.clone()) for p in prompts]
    combine(prompts, method, W)
    for made, tensors in zip(prompts, before, strict=True):
        assert all(
            torch.equal(a, b)
            for a, b in zip((made.cond, made.uncond, made.value_scale), tensors, strict=True)
        )


@pytest.mark.parametrize("method", Combine)
def test_combining_forgets_how_its_parts_were_projected(method: Combine):
    """What a prompt remembers for the model's own projection of its context is of its own tokens."""
    weight, parts = randn(CONTEXT, CONTEXT, seed=9), [prompt(), prompt(seed=1)]
    close(parts[0].project_context(weight, None).cond, parts[0].cond @ weight.T)
    made = combine(parts, method, (1, 2))
    close(made.project_context(weight, None).cond, made.cond @ weight.T)
    close(parts[0].negated.project_context(weight, None).uncond, parts[0].cond @ weight.T)


@pytest.mark.parametrize("method", [m for m in Combine if m is not Combine.CONCAT])
def test_arithmetic_needs_equal_numbers_of_tokens(method: Combine):
    with pytest.raises(MismatchError, match=rf"'{method.value}' needs .* \[4, 8\]"):
        combine([prompt(1), prompt(2)], method, (1, 1))


@pytest.mark.parametrize("method", Combine)
def test_prompts_of_different_batches_do_not_combine(method: Combine):
    with pytest.raises(MismatchError, match=r"batches of \[2, 3\] pictures"):
        combine([prompt(n, arrange=Arrange.ONE_EACH) for n in (2, 3)], method, (1, 1))


@pytest.mark.parametrize("method", Combine)
def test_prompts_of_different_adapters_do_not_combine(method: Combine):
    other = make_prompt(adapter(seed=1), randn(1, T, CONTEXT), randn(1, T, CONTEXT))
    with pytest.raises(MismatchError, match="different adapters"):
        combine([prompt(), other], method, (1, 1))


@pytest.mark.parametrize("method", [Combine.AVERAGE, Combine.NORM_AVERAGE])
def test_weights_that_add_up_to_0_have_no_average(method: Combine):
    with pytest.raises(SettingError, match="add up to 0"):
        combine([prompt(), prompt(seed=1)], method, (1, -1))
