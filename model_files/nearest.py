"""Names of model files: which installed file a name means, and which are nearest to it.

A name means a file that differs by its folder, case, '-' or '_', its suffix, a stray space, or the order of its words:
'ip-adapter_sd15_plus.pth' is 'ip-adapter-plus_sd15.safetensors'. Names alone are compared; no file is opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import PurePosixPath, PureWindowsPath

_SUFFIX = re.compile(r"\s*\.(safetensors|sft|bin|pth?|ckpt|onnx|ipadpt|zip)$")
# What browsers and file managers add.
_COPY = re.compile(r"\s*(\(\d+\)|- copy)$")
# Several spellings of one word, in names whose words stand apart by one space; applied in this order.
_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), word)
    for pattern, word in (
        (r"\bip ?adapters?(?=\b|[a-z])", "ipadapter "),
        (r"\bip\b(?! ?adapter)", "ipadapter"),
        (r"\b(?:sd ?)?v? ?1 5\b|\bsd ?v?15\b", "sd15"),
        (r"\b(?:sd ?)?xl\b", "sdxl"),
        (r"\bvit (?=h\b|l\b|g\b|bigg\b)", "vit"),
        (r"\bvit ?big ?g\b", "vitg"),
        (r"\bface ?id", "faceid "),
        (r"\b(full|plus)face\b", r"\1 face"),
        (r"\b([a-z]{3,}) ?v (\d+)\b|\b([a-z]{3,})v(\d+)\b", r"\1\3 v\2\4"),
        (r"\bv1 1\b", "v11"),
    )
)
# Words of generic names: 'model.safetensors' in one folder is not the one in another.
_GENERIC = frozenset(
    "model models pytorch diffusion adapter ipadapter open clip vision image encoder fp16 fp32 bf16 ema".split()  # noqa: SIM905
)
# Words of generic names that are of upstream's file formats only.
_FILLER = frozenset(("pytorch", "diffusion", "open"))


def match_name(wanted: str, names: Sequence[str]) -> str | None:
    """The one of `names` (as a menu shows them, below their folder) that `wanted` means; None if none does.

    Of several the first in this order: itself, the same path, the same base name, the same but for its suffix, the
    same words. A generic base name needs the same folder too, or must be the only one.
    """
    if wanted in names:
        return wanted
    for same in (_path, _base, _stem, _identifying_words):
        found = [name for name in names if same(name) == same(wanted) and _may_be(wanted, name, same)]
        if found and (len(found) == 1 or not is_generic_name(wanted)):
            return min(
                found, key=lambda name: (-_shared_folders(wanted, name), _is_pickle(name), len(name), name)
            )
    return None


def same_path(wanted: str, names: Sequence[str]) -> str | None:
    """The one of `names` in the same folder, whatever its '\\' or '/', case and blanks at its ends."""
    if wanted in names:
        return wanted
    return next((name for name in names if _path(name) == _path(wanted)), None)


def nearest(wanted: str, names: Sequence[str], count: int = 8) -> list[str]:
    """Those of `names` that have most in common with `wanted`, the nearest first."""
    return sorted(names, key=lambda name: (-_name_similarity(wanted, name), name))[:count]


def list_nearest(wanted: str, names: Sequence[str], count: int = 8) -> str:
    """For an error message: the nearest names, and how many more there are; or 'none'."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return (", ".join(nearest(wanted, names, count)) or "none") + more


@lru_cache(maxsize=4096)
def name_words(name: str) -> frozenset[str]:
    """The words of a file's name, without folders and suffix, in one spelling."""
    text = " ".join(re.findall(r"[a-z0-9]+", _stem(name)))
    for pattern, word in _SPELLINGS:
        text = " ".join(pattern.sub(word, text).split())
    return frozenset(text.split())


def is_generic_name(name: str) -> bool:
    """Whether it is upstream's 'model.safetensors' or the like, which is another file in each folder."""
    return name_words(name) <= _GENERIC


def _path(name: str) -> str:
    return PureWindowsPath(name.strip()).as_posix().lower()


def _base(name: str) -> str:
    return PurePosixPath(_path(name)).name


def _stem(name: str) -> str:
    return _COPY.sub("", _SUFFIX.sub("", _base(name))).strip()


def _identifying_words(name: str) -> frozenset[str]:
    """With those of its folder, where the base name is generic."""
    if not is_generic_name(name):
        return name_words(name)
    folder = name_words(PurePosixPath(_path(name)).parent.name)
    return name_words(name) - _FILLER | folder if folder else frozenset((_base(name),))


def _may_be(wanted: str, name: str, same: Callable[[str], object]) -> bool:
    """Whether two files of one base name may be the same: yes, unless it is generic and their folders differ."""
    if same in (_path, _identifying_words) or not is_generic_name(wanted):
        return True
    ours, theirs = (PurePosixPath(_path(path)).parent.parts for path in (name, wanted))
    short = min(len(ours), len(theirs))
    return not short or ours[-short:] == theirs[-short:]


def _shared_folders(wanted: str, name: str) -> int:
    return len(set(PurePosixPath(_path(wanted)).parts[:-1]) & set(PurePosixPath(_path(name)).parts[:-1]))


def _is_pickle(name: str) -> bool:
    """Of two layouts of one file .safetensors comes first."""
    return not _path(name).endswith(".safetensors")


def _name_similarity(wanted: str, name: str) -> float:
    """0 for nothing in common, 2 for the same: words they share, and how they are spelled."""
    ours, theirs = name_words(wanted), name_words(name)
    shared = len(ours & theirs) / max(len(ours | theirs), 1)
    spelled = SequenceMatcher(None, " ".join(sorted(ours)), " ".join(sorted(theirs)), autojunk=False).ratio()
    return shared + spelled
