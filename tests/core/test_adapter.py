"""Adapter: the module around a checkpoint, and K'/V' of every site."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from core.small import CONTEXT, WIDTHS, adapter, checkpoint, flat, nested, randn
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.checkpoint import Checkpoint, read_checkpoint
from image_prompt.ipadapter_core.errors import CheckpointError
from image_prompt.ipadapter_core.features import Features
from safetensors.torch import save_file
from torch import Tensor, nn

KINDS = ("base", "plus", "full")


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_dict_is_the_released_flat_layout(kind: str):
    assert adapter(kind).state_dict().keys() == flat(kind).keys()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_has_memory_before_the_tensors_are_taken(kind: str):
    assert {p.device.type for p in Adapter(checkpoint(kind)).parameters()} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_dtype_of_the_file_is_kept(dtype: torch.dtype):
    file = checkpoint(dtype=dtype)
    assert {p.dtype for p in Adapter(file).load_checkpoint(file).parameters()} == {dtype}


def test_keys_and_values_are_tokens_times_matrices():
    """Eq. 4: K' = c W'k, V' = c W'v, one pair for each site."""
    made, tensors, tokens = adapter(), flat(), randn(2, 5, CONTEXT)
    pairs = made.keys_values(tokens)
    assert [k.shape for k, _ in pairs] == [(2, 5, width) for width in WIDTHS]
    for n, (k, v) in enumerate(pairs):
        torch.testing.assert_close(k, tokens @ tensors[f"ip_adapter.{2 * n + 1}.to_k_ip.weight"].T)
        torch.testing.assert_close(v, tokens @ tensors[f"ip_adapter.{2 * n + 1}.to_v_ip.weight"].T)


def test_sites_are_in_number_order_not_in_text_or_file_order():
    tensors = {key: t for key, t in flat().items() if key.startswith("image_proj.")}
    for n in (11, 101, 9):
        tensors |= {f"ip_adapter.{n}.to_{kind}_ip.weight": randn(n, CONTEXT) for kind in "kv"}
    file = Checkpoint("shuffled", **nested(tensors))
    made = Adapter(file).load_checkpoint(file)
    assert made.spec.site_keys == (9, 11, 101)
    assert [k.shape[-1] for k, _ in made.keys_values(randn(1, 2, CONTEXT))] == [9, 11, 101]


def test_no_graph_is_kept():
    made = adapter("plus")
    made.requires_grad_(True)
    tokens = made.project(Features(randn(1, 9, 12)))
    assert not any(t.requires_grad for t in (tokens, *made.keys_values(tokens)[0]))


def test_tensors_of_other_features_are_left_alone():
    """FaceID files carry a LoRA in the same numbering."""
    file = checkpoint()
    lora = dict(file.ip_adapter) | {"0.to_q_lora.down.weight": randn(4, 16), "extra.scale": torch.ones(())}
    more = Checkpoint(file.name, file.image_proj, lora)
    made = Adapter(more).load_checkpoint(more)
    assert made.state_dict().keys() == flat().keys()
    assert made.digest == adapter().digest


def test_the_digest_tells_adapters_apart():
    file = checkpoint()
    changed = dict(file.ip_adapter) | {"1.to_v_ip.weight": file.ip_adapter["1.to_v_ip.weight"] * 1.01}
    others = [
        checkpoint(seed=1),
        Checkpoint(file.name, file.image_proj, changed),
        checkpoint(dtype=torch.float16),
    ]
    digests = {Adapter(one).digest for one in (file, *others)}
    assert len(digests) == 4
    assert all(len(digest) == 16 for digest in digests)


def test_layers_are_made_by_the_given_operations():
    """The host passes its own layers, which cast by themselves."""

    class HostLinear(nn.Linear):
        pass

    operations = SimpleNamespace(Linear=HostLinear, LayerNorm=nn.LayerNorm)
    made = Adapter(checkpoint("plus"), operations)
    linear = [module for module in made.modules() if isinstance(module, nn.Linear)]
    assert {type(module) for module in linear} == {HostLinear}
    assert len(linear) == 2 + 2 * 5 + 2 * len(
        WIDTHS
    )  # proj_in and out; q, kv, out, ff and ff of 2 layers; K' and V'


KEY = "ip_adapter.3.to_v_ip.weight"
ODD: dict[str, Callable[[Tensor], object]] = {
    "float8_e4m3fn": lambda t: t.to(torch.float8_e4m3fn),
    "int8": lambda t: t.to(torch.int8),
    "int64": lambda t: t.long(),
    "bool": lambda t: t > 0,
    "complex64": lambda t: t.to(torch.complex64),
    "sparse": lambda t: t.to_sparse(),
    "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "meta": lambda t: t.to("meta"),
    "conjugate": lambda t: t.to(torch.complex64).conj(),
    "expanded": lambda t: t[:1].expand(t.shape),
    "holds nothing": lambda t: t[:0],
    "a list": lambda t: t.tolist(),
}


@pytest.mark.parametrize("case", ODD)
def test_tensors_that_are_no_plain_numbers_are_refused_by_name(case: str, tmp_path: Path):
    """From every container that can hold them, and from dictionaries of other packs."""
    tensors: dict[str, Any] = flat() | {KEY: ODD[case](flat()[KEY])}
    roles: Any = nested(tensors)
    loaders: list[Callable[[], Checkpoint]] = []
    if case not in ("expanded", "conjugate"):  # in memory these are numbers
        loaders.append(lambda: Checkpoint("a", **roles))
    for legacy in (False, True):
        path = tmp_path / f"{legacy}.bin"
        if legacy and case == "meta":
            continue
        torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
        loaders.append(lambda path=path: read_checkpoint(path))
    if case in ("float8_e4m3fn", "int8", "int64", "bool", "complex64", "holds nothing"):
        save_file(tensors, tmp_path / "a.safetensors")
        loaders.append(lambda: read_checkpoint(tmp_path / "a.safetensors"))
    for load in loaders:
        with pytest.raises(CheckpointError) as caught:
            loaded(load())
        text = str(caught.value)
        assert "\n" not in text
        assert case in text or case == "a list"


def loaded(file: Checkpoint) -> Adapter:
    return Adapter(file).load_checkpoint(file)
