"""What a trainable adapter adds at a site: as a prompt's residual, of K' and V' that have gradients. λ is 1 (eq. 6)."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from ..adapter import KeysValues, TimedKeysValues
from ..attention import AtSite, Batch, Own, Step, by_head, image_attention, normed_by_head
from ..joint import JointResidual, Ready, scaled_over


class Learnt:
    """K' and V' of the batch that is trained on, for all sites. own_norms (sites, d): of the model's q and k, where an
    adapter attends to the picture's own keys too."""

    rows, gains = 1, None

    def __init__(self, own_norms: tuple[Tensor, Tensor] | None = None):
        self.own_norms = own_norms
        self.pairs: KeysValues = ()
        self._ready: Ready | None = None

    def use(self, pairs: KeysValues | TimedKeysValues, like: Tensor) -> None:
        """For the next call of the model, which computes in like's dtype."""
        if not isinstance(pairs, TimedKeysValues):
            self.pairs = pairs
            return
        assert self.own_norms is not None
        norms = pairs.query_norms, pairs.key_norms
        self._ready = scaled_over((pairs.keys, pairs.values), norms, self.own_norms, like)

    def at(self, own: Own, batch: Batch, repeat_last: bool, like: Tensor) -> Ready:
        assert self._ready is not None
        return self._ready

    def forget(self) -> None: ...


def pairs_of_rows(pairs: KeysValues | TimedKeysValues, rows: Tensor) -> KeysValues | TimedKeysValues:
    """K' and V' of these rows of a batch."""
    if isinstance(pairs, TimedKeysValues):
        return pairs._replace(keys=pairs.keys[:, rows], values=pairs.values[:, rows])
    return tuple((keys[rows], values[rows]) for keys, values in pairs)


class LearntResidual(AtSite):
    """Attn(Q, K', V') of the site with this number. normed: whether K' is brought to length √d in each head."""

    def __init__(self, learnt: Learnt, number: int, normed: bool):
        self.learnt, self.number, self.normed = learnt, number, normed
        self.rows, self.weight, self.region, self.repeat_last = 1, 1.0, None, True
        self._masks: dict[tuple[Any, ...], Tensor] = {}

    def attention(self, q: Tensor, heads: int, batch: Batch, step: Step) -> Tensor:
        keys, values = self.learnt.pairs[self.number]
        keys = normed_by_head(keys, heads) if self.normed else keys
        return image_attention(q, *(by_head(t, heads).to(q) for t in (keys, values)))


def learnt_residual(learnt: Learnt, number: int, timed: bool, normed: bool) -> AtSite:
    """Of the site with this number in the adapter's file."""
    if timed:
        return JointResidual(cast("Any", learnt), number, 1.0)
    return LearntResidual(learnt, number, normed)
