"""One call of the model while sampling: what each row of its batch is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...ipadapter_core.attention import COND, UNCOND, Moment
from ...ipadapter_core.errors import MismatchError
from ...ipadapter_core.masking import Crop
from ...ipadapter_core.rows import Numbers
from ...ipadapter_core.timing import SigmaWindow, Timing

UNKNOWN: Numbers = ()  # where the numbers of pictures are not known
CALL = "image_prompt_call"  # key of the host's transformer_options
# Where packs with regions list a number of the host's kind for each block of rows that they made inside attn2:
# ComfyUI-ppm and prompt-control. Others edit cond_or_uncond itself.
LISTS = ("cond_or_uncond_couple", "cond_or_uncond_hook_couple", "cond_or_uncond")


def role_by_number(number: int) -> int:
    """Where nothing else is known: the host calls samplers' conditionings (positive, negative) and numbers them so."""
    return UNCOND if number == 1 else COND


class StepClock:
    """The current sigma as a number: one read from the device per model call, shared by all prompts and sites."""

    def __init__(self) -> None:
        self._last: tuple[Tensor | None, float] = (None, 0.0)

    def __deepcopy__(self, memo: dict[int, Any]) -> StepClock:
        return self

    def read(self, sigmas: Tensor) -> float:
        last = self._last
        if last[0] is not sigmas:  # the tensor itself is kept, so its identity cannot be reused
            last = self._last = (sigmas, float(sigmas[0]))
        return last[1]


@dataclass(frozen=True, eq=False)
class Layout:
    """Blocks of equally many rows. roles, crops: of each block. frames: numbers of the pictures of a block.

    cut: whether rows are parts of a picture, and nobody says which.
    """

    roles: tuple[int, ...]
    crops: tuple[Crop, ...] | None = None
    frames: Numbers | None = None
    cut: bool = False


@dataclass(frozen=True, eq=False)
class Call:
    """numbers: the host's cond_or_uncond as the call came. rows: of its batch. total: pictures of the latent batch.

    windows: of the timings of all prompts, in this model's sigmas. latent: its (H, W), where it is known. notes: what
    patches of earlier blocks leave for those of later ones. given: the moment, as the call came with it.
    """

    numbers: tuple[int, ...]
    rows: int
    layout: Layout
    sigmas: Tensor | None = None
    total: int | None = None
    windows: Mapping[Timing, SigmaWindow] = field(default_factory=dict)
    clock: StepClock = field(default_factory=StepClock)
    latent: tuple[int, int] | None = None
    notes: dict[str, int] = field(default_factory=dict)
    given: Moment | None = None
    _found: dict[tuple[int, tuple[int, ...], int], Layout] = field(default_factory=dict)

    @property
    def moment(self) -> Moment:
        """Of the step, so that all its calls have one sigma. Raises MismatchError where the call came without one."""
        if self.given is None:
            raise MismatchError(
                "another node calls the model's network itself, and does not say at which step. Take that node out, or the "
                "image prompt."
            )
        return self.given if self.sigmas is None else self.given._replace(sigma=self.sigmas)

    def factor(self, timing: Timing | None) -> float:
        """On the weight of a prompt of this timing in this call; 0 where it does not act."""
        if timing is None or self.sigmas is None:
            return 1.0
        return self.windows[timing].factor(self.clock.read(self.sigmas))

    def layout_of(self, q: Tensor, options: Mapping[str, Any]) -> Layout:
        """The layout of a site's queries, which other packs may have repeated. Raises MismatchError if none is known."""
        listed = self._listed(q.shape[0], options)
        if q.shape[0] == self.rows and listed == self.numbers:
            return self.layout
        parts = _parts_of_rows(q, self.rows, options)
        key = (q.shape[0], listed, parts)
        if key not in self._found:
            self._found[key] = self._cut(parts) if parts > 1 else self._repeated(q.shape[0], listed)
        return self._found[key]

    def _listed(self, rows: int, options: Mapping[str, Any]) -> tuple[int, ...]:
        """The numbers of the blocks of so many rows, as the pack that made them wrote them down; else the call's."""
        for name in LISTS:
            listed = options.get(name)
            if listed and rows == len(listed) * self.pictures:
                return tuple(listed)
        return self.numbers

    @property
    def pictures(self) -> int:
        """Rows of one of the host's conditionings."""
        return self.rows // len(self.numbers)

    def _cut(self, parts: int) -> Layout:
        """Every row cut into parts of the picture, which stand one after the other."""
        roles = tuple(role for role in self.layout.roles for _ in range(parts))
        return Layout(roles, None, self.layout.frames if self.pictures == 1 else UNKNOWN, cut=True)

    def _repeated(self, rows: int, listed: tuple[int, ...]) -> Layout:
        """The rows of conditionings repeated, one after the other, but of the host's number 1, which is left alone.

        So do packs that give regions of the positive a text each (Attention Couple): the rows of q give how often.
        """
        roles = self.layout.roles
        if len(roles) != len(self.numbers) and len({*roles}) > 1:
            raise _unknown_layout(rows, self.rows)
        of_number = dict(zip(self.numbers, roles, strict=False))
        if listed != self.numbers:
            found = tuple(of_number.get(number, role_by_number(number)) for number in listed)
        else:
            alone = self.numbers.count(1) if len({*self.numbers}) > 1 else 0
            blocks, rest = divmod(rows, self.pictures)
            often, left = divmod(blocks - alone, len(self.numbers) - alone)
            if rest or left or often < 1:
                raise _unknown_layout(rows, self.rows)
            found = tuple(
                role
                for role, number in zip(roles, self.numbers, strict=False)
                for _ in range(1 if alone and number == 1 else often)
            )
        return Layout(found, self._crop_of_all(len(found)), self.layout.frames)

    def _crop_of_all(self, blocks: int) -> tuple[Crop, ...] | None:
        crops = self.layout.crops
        if crops is None:
            return None
        if len(set(crops)) > 1:
            raise _unknown_layout(blocks, len(crops))
        return crops[:1] * blocks


def _parts_of_rows(q: Tensor, rows: int, options: Mapping[str, Any]) -> int:
    """Into how many parts each row of the call is cut at this site: attention in windows has more rows, as much shorter."""
    shape = options.get("activations_shape")
    parts, rest = divmod(q.shape[0], rows)
    return parts if shape and not rest and q.shape[1] * parts == shape[-2] * shape[-1] else 1


def _unknown_layout(rows: int, expected: int) -> MismatchError:
    return MismatchError(
        f"{rows} rows came at a cross-attention where the model was called with {expected}: another node repeats rows "
        "inside the model, and which of them belong to the positive and which to the negative text is not known. "
        "Take that node out, or use its own regions without it repeating the negative."
    )


def call_of_options(options: Mapping[str, Any], rows: int, clock: StepClock, **known: Any) -> Call:
    """A call of which nothing is known but transformer_options: roles by number. rows: of q at a site, or of the call."""
    numbers = tuple(options.get("cond_or_uncond") or (0,))
    shape = options.get("original_shape")
    if shape and rows != shape[0] and len({*numbers}) < len(numbers) and rows % len(numbers) == 0:
        shape = None  # a pack with regions has written them down in cond_or_uncond itself
    roles = tuple(role_by_number(number) for number in numbers)
    layout = Layout(roles, None, animation_frames(options))
    return Call(numbers, shape[0] if shape else rows, layout, options.get("sigmas"), clock=clock, **known)


def animation_frames(options: Mapping[str, Any], retained: Sequence[int] = ()) -> Numbers | None:
    """Numbers of the pictures of this call: AnimateDiff's sliding window, or the host's own context window.

    retained: positions of the window that the host fills with the first frames instead.
    """
    window = (options.get("ad_params") or {}).get("sub_idxs")
    if window is not None:
        return tuple(int(number) for number in window)
    context = options.get("context_window")
    if context is None or getattr(context, "dim", 0) != 0:
        return None
    numbers = [int(number) for number in context.index_list]
    anchor = getattr(context, "causal_anchor_index", None)
    if anchor is not None and anchor >= 0:
        numbers.insert(0, int(anchor))
    for position in retained:
        if 0 <= position < len(numbers):
            numbers[position] = position
    return tuple(numbers)
