"""A place of a model to which an image prompt is added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

# Of the path of an attention and the module there: the one that will be there while sampling.
Exchanged = Callable[[str, nn.Module], nn.Module]


def as_it_stands(_: str, module: nn.Module) -> nn.Module:
    return module


@dataclass(frozen=True)
class Site:
    """One attention that an adapter has a K'/V' pair for.

    label: name of its block, which users weight; all depths of one block share it. stage: part of the model, such as
    input, middle, output. run_index: of its block, 0 for the first that the model runs. depth: inside its block.
    width: rows of W'k, heads · head dimension. context_width: of the text tokens that it reads, 0 where adapters bring
    tokens of a width of their own. path: of its transformer block in the model. architecture: of the model, by name.
    """

    label: str
    stage: str
    run_index: int
    depth: int
    width: int
    context_width: int
    heads: int
    path: str = ""
    architecture: str = "UNet"


def block_labels(sites: Sequence[Site]) -> tuple[str, ...]:
    """Labels of the blocks in the order in which the model runs them."""
    return tuple(dict.fromkeys(site.label for site in sorted(sites, key=lambda site: site.run_index)))
