"""Decoupled cross-attention at one site: what λ·Attn(Q, K', V') adds, for any batch, mask and dtype."""

import pytest
import torch
from core.small import naive_attention, randn
from image_prompt.ipadapter_core import attention, masking
from image_prompt.ipadapter_core.attention import COND, UNCOND, SiteResidual, Step, image_attention
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.masking import token_weights
from torch import Tensor

HEADS, DIM, T = 2, 8, 5
WIDTH = HEADS * DIM
SIZE = (3, 7)
N = SIZE[0] * SIZE[1]
LAYOUTS = [(0,), (1,), (0, 1), (1, 0), (0, 0, 1), (1, 0, 0)]


def by_head(tensor: Tensor) -> Tensor:
    return tensor.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def keys_values(rows: int = 1, uncond: int = 1) -> tuple[Tensor, Tensor]:
    return randn(rows + uncond, T, WIDTH, seed=1), randn(rows + uncond, T, WIDTH, seed=2)


def residual(rows: int = 1, weight: float = 1.0, mask: Tensor | None = None, uncond: int = 1) -> SiteResidual:
    return SiteResidual(*keys_values(rows, uncond), rows, weight, mask)


def queries(batch: int, seed: int = 3) -> tuple[Tensor, Tensor]:
    """(out of the text attention, q), (batch, N, width)."""
    return randn(batch, N, WIDTH, seed=seed), randn(batch, N, WIDTH, seed=seed + 1)


def soft_mask(count: int = 1, height: int = 25, width: int = 40) -> Tensor:
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(6))


def close(a: Tensor, b: Tensor, atol: float = 2e-6) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


# --- image_attention ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 4, 257])
def test_it_is_softmax_attention(tokens: int):
    q, k, v = randn(3, N, WIDTH), randn(3, tokens, WIDTH, seed=1), randn(3, tokens, WIDTH, seed=2)
    close(image_attention(q, by_head(k), by_head(v)), naive_attention(q, k, v, HEADS))


@pytest.mark.parametrize(("batch", "groups"), [(1, 1), (4, 1), (4, 2), (6, 3), (6, 6)])
def test_neighbours_that_share_keys_get_what_copies_of_the_keys_would_give(batch: int, groups: int):
    q, k, v = randn(batch, N, WIDTH), randn(groups, T, WIDTH, seed=1), randn(groups, T, WIDTH, seed=2)
    copies = [t.repeat_interleave(batch // groups, dim=0) for t in (k, v)]
    close(image_attention(q, by_head(k), by_head(v)), naive_attention(q, *copies, HEADS))


def test_the_order_of_image_tokens_does_not_matter():
    q, (k, v), order = randn(2, N, WIDTH), keys_values(), torch.tensor([4, 2, 0, 1, 3])
    close(
        image_attention(q, by_head(k[:, order]), by_head(v[:, order])),
        image_attention(q, by_head(k), by_head(v)),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_queries_that_are_a_view_are_read_right(dtype: torch.dtype):
    """Hosts pass q as a slice or a transpose; nothing may rely on its memory layout."""
    q = randn(WIDTH, N, 4).to(dtype).permute(2, 1, 0)
    k, v = (by_head(t.to(dtype)) for t in keys_values())
    assert torch.equal(image_attention(q, k, v), image_attention(q.contiguous(), k, v))


# --- weight ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.5, 1.0, -1.0, 3.0])
def test_what_is_added_is_linear_in_the_weight(weight: float):
    """Eq. 8."""
    out, q = queries(2)
    full = residual().add_to(out, q, HEADS, (1, 0), None) - out
    close(residual(weight=weight).add_to(out, q, HEADS, (1, 0), None), out + weight * full)


def test_what_is_added_does_not_depend_on_what_is_there():
    out, q = queries(2)
    zero = torch.zeros_like(out)
    close(
        residual().add_to(out, q, HEADS, (1, 0), None), out + residual().add_to(zero, q, HEADS, (1, 0), None)
    )


def test_two_residuals_add_up_in_any_order():
    out, q = queries(2)
    one, other = residual(weight=0.7), SiteResidual(randn(2, 9, WIDTH), randn(2, 9, WIDTH, seed=9), 1, 1.3)
    there, back = (
        second.add_to(first.add_to(out, q, HEADS, (1, 0), None), q, HEADS, (1, 0), None)
        for first, second in ((one, other), (other, one))
    )
    close(there, back)


def test_text_matrices_as_image_matrices_double_the_text_attention():
    """Eq. 4 initialises W'k, W'v from Wk, Wv; with c_i = c_t then Z_new = 2 Z'."""
    _, q = queries(1)
    k, v = randn(1, T, WIDTH, seed=1), randn(1, T, WIDTH, seed=2)
    text = naive_attention(q, k, v, HEADS)
    same = SiteResidual(torch.cat((k, k)), torch.cat((v, v)), 1, 1.0)
    close(same.add_to(text, q, HEADS, (COND,), None), 2 * text)


# --- batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", LAYOUTS, ids=str)
@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize("rows", ["one prompt for all", "one image each"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_every_chunk_is_as_if_it_were_alone(chunks: tuple[int, ...], pictures: int, rows: str, masked: bool):
    """Whatever order and number of conds the sampler batches, each row meets its own image or none."""
    count = 1 if rows == "one prompt for all" else pictures
    mask = soft_mask(count) if masked else None
    out, q = queries(len(chunks) * pictures)
    got = residual(count, 0.8, mask).add_to(out, q, HEADS, chunks, SIZE)
    keys, values = keys_values(count)
    for index, chunk in enumerate(chunks):
        for picture in range(pictures):
            row, image = index * pictures + picture, picture % count
            part = image if chunk == COND else count
            alone = naive_attention(q[row : row + 1], keys[part : part + 1], values[part : part + 1], HEADS)
            weights = token_weights(mask, *SIZE)[image] if mask is not None else 1.0
            close(got[row], out[row] + 0.8 * alone[0] * weights)


def test_negative_images_of_each_picture_stay_with_it():
    out, q = queries(4)
    got = residual(rows=2, uncond=2).add_to(out, q, HEADS, (UNCOND, COND), None)
    keys, values = keys_values(2, 2)
    order = torch.tensor([2, 3, 0, 1])
    close(got, out + naive_attention(q, keys[order], values[order], HEADS))


def test_a_batch_of_another_size_than_the_images_is_refused():
    out, q = queries(6)
    with pytest.raises(MismatchError, match=r"has 2 images, one per picture, but 3 pictures are sampled"):
        residual(rows=2).add_to(out, q, HEADS, (1, 0), None)


# --- masks -------------------------------------------------------------------------------------------------------


def test_a_mask_and_its_inverse_add_up_to_no_mask():
    out, q = queries(2)
    mask = soft_mask()
    parts = [residual(mask=m).add_to(torch.zeros_like(out), q, HEADS, (1, 0), SIZE) for m in (mask, 1 - mask)]
    close(parts[0] + parts[1], residual().add_to(torch.zeros_like(out), q, HEADS, (1, 0), None))


def test_an_all_black_mask_leaves_every_bit_as_it_was():
    out, q = queries(2)
    black = residual(mask=torch.zeros(1, 8, 8))
    assert torch.equal(black.add_to(out, q, HEADS, (1, 0), SIZE), out)


def test_tokens_outside_the_mask_keep_every_bit():
    out, q = queries(2)
    mask = torch.zeros(1, *SIZE)
    mask[0, :, :3] = 1
    got = residual(mask=mask).add_to(out, q, HEADS, (1, 0), SIZE).unflatten(1, SIZE)
    assert torch.equal(got[:, :, 3:], out.unflatten(1, SIZE)[:, :, 3:])
    assert (got[:, :, :3] != out.unflatten(1, SIZE)[:, :, :3]).all()


def test_masks_of_another_number_than_the_pictures_are_refused():
    out, q = queries(6)
    with pytest.raises(MismatchError, match=r"2 masks came for 3 pictures; connect 1, or 3"):
        residual(mask=soft_mask(2)).add_to(out, q, HEADS, (1, 0), SIZE)


# --- what the host relies on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, soft_mask()], ids=["whole", "masked"])
def test_nothing_that_came_in_is_changed(mask: Tensor | None):
    out, q = queries(2)
    site = residual(weight=0.5, mask=mask)
    given = [out, q, site.keys, site.values] + ([] if mask is None else [mask])
    before = [tensor.clone() for tensor in given]
    site.add_to(out, q, HEADS, (1, 0), SIZE)
    assert all(torch.equal(tensor, old) for tensor, old in zip(given, before, strict=True))


@pytest.mark.parametrize("mask", [None, soft_mask()], ids=["whole", "masked"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)], ids=str)
def test_the_model_computes_in_its_own_dtype(dtype: torch.dtype, atol: float, mask: Tensor | None):
    out, q = queries(2)
    low = residual(mask=mask).add_to(out.to(dtype), q.to(dtype), HEADS, (1, 0), SIZE)
    assert low.dtype == dtype
    close(low.float(), residual(mask=mask).add_to(out, q, HEADS, (1, 0), SIZE), atol)


@pytest.mark.parametrize("masks", [1, 2])
def test_one_residual_serves_several_dtypes_and_batches(masks: int):
    """Ready-made tensors of one call are never taken for another."""
    site, half = residual(mask=soft_mask(masks)), torch.float16
    calls = [(torch.float32, (1, 0)), (half, (1, 0)), (torch.float32, (0,)), (torch.float32, (0, 1))]
    for dtype, chunks in calls * 2:
        out, q = (t.to(dtype) for t in queries(2 * len(chunks)))
        fresh = residual(mask=soft_mask(masks)).add_to(out, q, HEADS, chunks, SIZE)
        assert torch.equal(site.add_to(out, q, HEADS, chunks, SIZE), fresh)


def test_a_mask_is_resized_once_for_each_size(monkeypatch: pytest.MonkeyPatch):
    sizes: list[tuple[int, ...]] = []
    resize = masking.token_weights
    monkeypatch.setattr(
        masking, "token_weights", lambda m, h, w, mode: sizes.append((h, w)) or resize(m, h, w, mode)
    )
    site, (out, q) = residual(mask=soft_mask()), queries(2)
    for size in (SIZE, SIZE, SIZE[::-1], SIZE):
        site.add_to(out, q, HEADS, (1, 0), size)
    assert sizes == [SIZE, SIZE[::-1]]
    site.forget(torch.device("cpu"))
    site.add_to(out, q, HEADS, (1, 0), SIZE)
    assert sizes == [SIZE, SIZE[::-1]]
    site.forget()
    site.add_to(out, q, HEADS, (1, 0), SIZE)
    assert sizes == [SIZE, SIZE[::-1], SIZE]


def test_the_same_prompt_meets_batches_of_different_size_with_a_clear_word_about_its_masks():
    site = SiteResidual(torch.randn(2, 4, 16), torch.randn(2, 4, 16), 1, 1.0, torch.rand(2, 8, 8))
    two, three = torch.randn(4, 16, 16), torch.randn(6, 16, 16)
    assert site.add_to(two, two, 2, (0, 1), (4, 4)).shape == two.shape
    with pytest.raises(MismatchError, match="2 masks came for 3 pictures"):
        site.add_to(three, three, 2, (0, 1), (4, 4))


def test_a_batch_that_another_node_changed_is_refused_in_words():
    site = SiteResidual(torch.randn(2, 4, 16), torch.randn(2, 4, 16), 1, 1.0)
    q = torch.randn(3, 16, 16)
    with pytest.raises(MismatchError, match="a batch of 3 came for 2 conditionings"):
        site.add_to(q, q, 2, (0, 1), None)


def test_the_windows_of_a_long_animation_do_not_fill_the_device():
    site = SiteResidual(*keys_values(rows=100), 100, 1.0, soft_mask(100), repeat_last=True)
    out, q = queries(2)
    for start in range(98):
        got = site.add_to(out, q, HEADS, (COND,), SIZE, (start, start + 1))
    assert (len(site.ready), len(site.masks)) == (attention.KEPT, attention.KEPT_MASKS)
    keys, values = keys_values(rows=100)
    alone = naive_attention(q, keys[97:99], values[97:99], HEADS)
    close(got, out + alone * token_weights(soft_mask(100), *SIZE)[97:99])


def test_rows_and_weights_that_end_early_go_on_with_the_last():
    out, q = queries(3)
    weights = torch.tensor([0.2, 0.9])
    site = SiteResidual(*keys_values(rows=2), 2, weights, repeat_last=True)
    got = site.add_to(out, q, HEADS, (COND,), None)
    keys, values = keys_values(rows=2)
    rows = torch.tensor([0, 1, 1])
    close(got, out + naive_attention(q, keys[rows], values[rows], HEADS) * weights[rows][:, None, None])


# --- in place ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, soft_mask()])
def test_in_place_it_writes_the_same_sum_into_out(mask: Tensor | None):
    out, q = queries(2)
    site, chunks = residual(mask=mask), (COND, UNCOND)
    apart = site.add_to(out, q, HEADS, chunks, SIZE)
    assert apart is not out
    assert site.add_to(out, q, HEADS, chunks, SIZE, step=Step(in_place=True)) is out
    assert torch.equal(out, apart)


def test_what_gradients_need_is_never_written_on():
    out, q = queries(1)
    out.requires_grad_()
    assert residual().add_to(out, q, HEADS, (COND,), SIZE, step=Step(in_place=True)) is not out
