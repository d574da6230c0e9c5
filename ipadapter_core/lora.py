"""The LoRA inside a FaceID file, renamed after the model's own modules.

The reference numbers all attention processors: 2n is attn1 and 2n + 1 attn2 of the n-th site. It adds
up(down(x)) to q, k, v and to the output projection with scale 1 and no alpha (attention_processor_faceid.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from .families.site import Site
from .spec import AdapterSpec

_KEY = re.compile(r"^(\d+)\.to_(q|k|v|out)_lora\.(down|up)\.weight$")
# modules of an attention by the names that the LoRA has for them
MODULES = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}


def lora_tensors(ip_adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The LoRA matrices among an adapter's tensors, under the file's keys."""
    return {key: tensor for key, tensor in ip_adapter.items() if _KEY.match(key)}


def attentions_of(site: Site, number: int) -> dict[int, str]:
    """Paths of the two attentions of a site's block, by the numbers that files have for them. number: of the site."""
    return {number - 2 + n: f"{site.path}.attn{n}" for n in (1, 2)}


def lora_by_module(
    lora: Mapping[str, Tensor], spec: AdapterSpec, sites: Sequence[Site], indices: Sequence[int | None]
) -> dict[str, Tensor]:
    """The matrices as '<attention>.<module>.lora_{up,down}.weight', where the model has the weight of <attention>.<module>.

    indices: for each site, its number in the adapter (`match_sites`). What belongs to no site is left out.
    """
    attention: dict[int, str] = {}
    for site, index in zip(sites, indices, strict=True):
        if index is not None:
            attention |= attentions_of(site, spec.site_keys[index])
    matches = ((match, tensor) for key, tensor in lora.items() if (match := _KEY.match(key)))
    return {
        f"{attention[int(match[1])]}.{MODULES[match[2]]}.lora_{match[3]}.weight": tensor
        for match, tensor in matches
        if int(match[1]) in attention
    }
