"""What is known of a released file: where it is, what it is, and which intent it serves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

HUB = "https://huggingface.co"
HASH_PREFIX = 16  # digits of a sha256 that decide
_PERMISSIVE = ("Apache-2.0", "MIT")
_INSIGHTFACE_PAGE = "https://github.com/deepinsight/insightface/tree/master/model_zoo"


class Kind(str, Enum):
    ADAPTER = "adapter"
    ENCODER = "clip vision"
    LORA = "lora"
    FACE_PACK = "face pack"


class Intent(str, Enum):
    """What a picture is to be used for. Each is served on a family by one released adapter or a few."""

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
    `detect` names them. sha256, size (bytes): None where unconfirmed; of a hash its first 16 digits will do. published_mb:
    its size in MB as published. also: intents that it serves too, where nothing was released for them. tokens: of one
    picture, where files of its layout differ in them, else 0. lora, faces: names of the rows that belong with it.
    name_hints: parts of a file name that distinguish it from files of the same layout. members: of a face pack, without
    which it is not whole.
    """

    name: str
    kind: Kind
    folder: str
    licence: str
    published_mb: float
    sha256: str | None = None
    size: int | None = None
    repo: str = ""
    path: str = ""
    link: str = ""
    family: str = ""
    variant: str = ""
    intent: Intent | None = None
    also: tuple[Intent, ...] = ()
    tokens: int = 0
    encoder: str = ""
    lora: str = ""
    faces: str = ""
    name_hints: tuple[str, ...] = ()
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
    def terms(self) -> str:
        """The licence, where it asks for more than to be named."""
        return "" if self.licence in _PERMISSIVE else self.licence

    def serves(self, intent: Intent | None) -> bool:
        """None: any intent."""
        return self.intent is not None and intent in (None, self.intent, *self.also)

    def has_hash(self, found: str) -> bool:
        """Whether this is its sha256, as far as that is known."""
        return bool(self.sha256) and found.startswith(str(self.sha256))

    @property
    def megabytes(self) -> float:
        return self.size / 1e6 if self.size else self.published_mb

    @property
    def download_hint(self) -> str:
        """What to get, from where, into which folder: one line."""
        terms = f", {self.terms}" if self.terms else ""
        known = self.sha256 or "not known"
        return (
            f"{self.name} ({self.megabytes:,.0f} MB{terms}) from {self.url} into models/{self.folder}, "
            f"sha256 {'begins ' if len(known) == HASH_PREFIX else ''}{known}"
        )
