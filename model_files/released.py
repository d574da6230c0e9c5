"""What is known of a released file, and what it is good for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

HUB = "https://huggingface.co"
_INSIGHTFACE_PAGE = "https://github.com/deepinsight/insightface/tree/master/model_zoo"


class Kind(str, Enum):
    ADAPTER = "adapter"
    ENCODER = "clip vision"
    LORA = "lora"
    FACE_PACK = "face pack"


class Intent(str, Enum):
    """What a picture is to be used for. One released adapter, or a choice of a few, serves each on a family."""

    STANDARD = "standard"
    LIGHT = "light"
    PLUS = "plus"
    PLUS_FACE = "plus face"
    FULL_FACE = "full face"
    COMPOSITION = "composition"
    BIG_ENCODER = "standard, ViT-bigG"
    ANIME = "anime"
    FACE_ID = "face identity"
    FACE_ID_PLUS = "face identity plus"
    PORTRAIT = "portrait"
    PORTRAIT_STRONG = "portrait, strong"


@dataclass(frozen=True)
class KnownFile:
    """One released file.

    name: to save it as. folder: under models. repo, path: on Hugging Face, else `link`. family, variant, encoder: as
    `detect` names them. sha256, size (bytes): None where unconfirmed; about: its size in MB as published. lora, faces:
    names of the rows that belong with it. words: of a file name, that tell it from files of the same layout. members:
    of a face pack, without which it is not whole.
    """

    name: str
    kind: Kind
    folder: str
    licence: str
    about: float
    sha256: str | None = None
    size: int | None = None
    repo: str = ""
    path: str = ""
    link: str = ""
    family: str = ""
    variant: str = ""
    intent: Intent | None = None
    encoder: str = ""
    lora: str = ""
    faces: str = ""
    words: tuple[str, ...] = ()
    members: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return self.link or f"{HUB}/{self.repo}/resolve/main/{self.path}"

    @property
    def page(self) -> str:
        """The page to read before downloading, with the licence."""
        return f"{HUB}/{self.repo}" if self.repo else _INSIGHTFACE_PAGE

    @property
    def commercial(self) -> bool:
        return "non-commercial" not in self.licence

    @property
    def megabytes(self) -> float:
        return self.size / 1e6 if self.size else self.about

    @property
    def order(self) -> str:
        """What to get, from where, into which folder: one line."""
        terms = "" if self.commercial else f", {self.licence}"
        return (
            f"{self.name} ({self.megabytes:,.0f} MB{terms}) from {self.url} into models/{self.folder}, "
            f"sha256 {self.sha256 or 'not known'}"
        )
