"""SigLIP's attention-pooling head: one vector for a picture, of all tokens of the encoder (transformers' pooler_output)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-6
HEAD = "vision_model.head."  # of the head's keys in the encoder's file
NORM = "vision_model.post_layernorm.weight"
KEYS = (
    "probe",
    *(f"attention.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")),
    *(f"{layer}.{part}" for layer in ("layernorm", "mlp.fc1", "mlp.fc2") for part in ("weight", "bias")),
)


def head_keys(keys: Iterable[str]) -> dict[str, str] | None:
    """The file's key of each tensor of the head and of the norm in front of it; None where the file lacks one."""
    by_end = {key[key.find("vision_model.") :]: key for key in keys if "vision_model." in key}
    wanted = {name: by_end.get(f"{HEAD}{name}") for name in KEYS} | {NORM: by_end.get(NORM)}
    found = {name: key for name, key in wanted.items() if key is not None}
    return found if len(found) == len(wanted) else None


def pooled(tokens: Tensor, head: Mapping[str, Tensor], heads: int) -> Tensor:
    """(n, T, width) after the encoder's last norm -> (n, width). head: its tensors by `KEYS`."""
    n, width = tokens.shape[0], tokens.shape[-1]
    part = {name: head[name].to(tokens) for name in KEYS}
    weight, bias = part["attention.in_proj_weight"], part["attention.in_proj_bias"]
    q = F.linear(part["probe"].expand(n, -1, -1), weight[:width], bias[:width])
    k, v = F.linear(tokens, weight[width:], bias[width:]).chunk(2, -1)
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    read = F.linear(read, part["attention.out_proj.weight"], part["attention.out_proj.bias"])
    x = F.layer_norm(read, (width,), part["layernorm.weight"], part["layernorm.bias"], _EPS)
    x = F.gelu(F.linear(x, part["mlp.fc1.weight"], part["mlp.fc1.bias"]), approximate="tanh")
    return (read + F.linear(x, part["mlp.fc2.weight"], part["mlp.fc2.bias"]))[:, 0]
