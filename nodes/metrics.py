"""A node that scores generated pictures as the paper does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from .. import host
from ..evaluation.clip import PAPERS, Clip
from ..evaluation.matching import Group
from ..evaluation.report import as_markdown, contact_sheet
from ..evaluation.scoring import Embeddings, evaluate
from ..host import folders
from ..ipadapter_core.errors import SettingError
from ..ipadapter_core.metrics.scores import Captions
from ..ipadapter_core.pictures.sheets import as_image, as_tensor
from ..ipadapter_core.values import refuse_strip
from .entry import Node
from .inputs import TOOLS, choice_input, lines_of

# embeddings of 3 kB, for pictures and captions that come again
KEPT = 10_000


class _HostClip(Clip):
    """Loaded when it is first needed, and on the host's device, under its memory management, until `stack` is closed."""

    def __init__(self, name: str | Path, stack: ExitStack):
        super().__init__(name, lazy=True)
        self._stack: ExitStack | None = stack

    def load(self) -> None:
        super().load()
        if self._stack is not None:
            self.device = self._stack.enter_context(host.on_device(host.patcher_over(self.model)))
            self._stack = None

    def texts(self, texts: Sequence[str]) -> Tensor:
        self.load()
        return super().texts(texts)


class ImagePromptScoreNode(Node):
    TITLE = "Image Prompt: Score"
    DESCRIPTION = (
        "CLIP-I, how like the reference the pictures are, and CLIP-T, how well they fit its caption, as in table 1 of the "
        "IP-Adapter paper."
    )
    CATEGORY = TOOLS
    SEARCH_ALIASES = ["clip score", "CLIP-I", "CLIP-T", "evaluate ipadapter", "image similarity"]
    RETURN_TYPES = ("FLOAT", "FLOAT", "STRING", "IMAGE")
    RETURN_NAMES = ("clip_i", "clip_t", "report", "sheet")
    OUTPUT_TOOLTIPS = (
        "Mean cosine with the reference.",
        "Mean cosine with the caption; 0 without captions.",
        "A table: cosines, their standard errors, CLIPScore.",
        "The best and the worst by CLIP-I.",
    )
    FUNCTION = "score"
    # pictures of different sizes come as a list
    INPUT_IS_LIST = True
    # checked where it is loaded
    KINDS = {"clip_model": lambda name, _: name}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        generated = "The same number from each reference: first those of the first, then those of the second, and so on."
        captions = "One line for each reference; several captions of one are parted by |. Empty: no CLIP-T."
        model = "The paper's CLIP model, or a folder in models/clip_vision that holds one in transformers' layout."
        return {
            "required": {
                "generated": ("IMAGE", {"tooltip": generated}),
                "references": ("IMAGE", {"tooltip": "The image prompts."}),
                "captions": ("STRING", {"multiline": True, "default": "", "tooltip": captions}),
                "clip_model": ("STRING", {"default": PAPERS, "tooltip": model}),
                "which": choice_input(Captions, Captions.FIRST, "Which of several captions counts."),
            }
        }

    def score(
        self,
        generated: list[Tensor],
        references: list[Tensor],
        captions: list[str],
        clip_model: list[str],
        which: list[str],
    ):
        pictures = _images("generated", generated), _images("references", references)
        groups = _groups(*pictures, _captions(captions))
        with ExitStack() as stack:
            clip = _HostClip(folders.clip_model(clip_model[0], PAPERS), stack)
            kept = Embeddings(clip, folder=folders.scores_folder(), most=KEPT)
            result = evaluate("generated", groups, kept, Captions(which[0]))
        return (
            result.summary.clip_i,
            result.summary.clip_t or 0.0,
            as_markdown([result]),
            as_tensor(contact_sheet(result)),
        )


def _images(name: str, batches: list[Tensor]) -> list[Image.Image]:
    for batch in batches:
        refuse_strip(batch, name)
    return [as_image(image) for batch in batches for image in batch]


def _captions(given: list[str]) -> list[tuple[str, ...]]:
    return [tuple(part.strip() for part in line.split("|") if part.strip()) for line in lines_of(given)]


def _groups(
    generated: list[Image.Image], references: list[Image.Image], captions: list[tuple[str, ...]]
) -> list[Group]:
    each, rest = divmod(len(generated), len(references))
    if rest or not each:
        raise SettingError(
            f"{len(generated)} pictures came for {len(references)} references; give the same number for each of them."
        )
    if any(captions) and len(captions) != len(references):
        raise SettingError(
            f"{len(captions)} lines of captions came for {len(references)} references; give one line for each, or none."
        )
    texts = captions if any(captions) else [()] * len(references)
    return [
        Group(f"reference {n + 1}", reference, tuple(generated[n * each : (n + 1) * each]), texts[n])
        for n, reference in enumerate(references)
    ]
