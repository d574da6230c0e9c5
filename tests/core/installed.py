"""Model files on a disk for tests of the choice between them."""

from __future__ import annotations

from pathlib import Path

from core.outlines import FACE_LORAS, encoder, siglip, write_outline
from image_prompt.model_files.catalog import file_named
from image_prompt.model_files.choice import Missing, ResolvedFiles, resolve
from image_prompt.model_files.index import Entry, Index
from image_prompt.model_files.released import Intent
from support.layouts import LAYOUTS
from support.transformer_layouts import TRANSFORMER_LAYOUTS

TABLES = {layout.file: layout.table for layout in (*LAYOUTS, *TRANSFORMER_LAYOUTS)}


class Installed:
    """Model files of a layout under a name, and the sha256 that each is to have (the files are empty but for outlines)."""

    def __init__(self, folder: Path):
        self.folder, self.hashes, self.hashed = folder, {}, []

    def adapter(self, layout: str, name: str = "", released: str = "") -> Installed:
        path = write_outline(self.folder / "ipadapter" / f"{name or layout}.safetensors", TABLES[layout])
        return self._is(path, released)

    def encoder(self, sizes: tuple[int, int, int, int], name: str = "model") -> Installed:
        write_outline(self.folder / "clip_vision" / f"{name}.safetensors", encoder(*sizes))
        return self

    def siglip(self, name: str, head: bool = True) -> Installed:
        write_outline(self.folder / "clip_vision" / f"{name}.safetensors", siglip(head))
        return self

    def lora(self, family: str, name: str, released: str = "") -> Installed:
        return self._is(
            write_outline(self.folder / "loras" / f"{name}.safetensors", FACE_LORAS[family]), released
        )

    def _is(self, path: Path, released: str) -> Installed:
        known = file_named(released) if released else None
        if known and known.size:
            with path.open("r+b") as file:
                file.truncate(max(known.size, path.stat().st_size))
        self.hashes[path] = known.sha256 if known else "0" * 64
        return self

    def sha256(self, entry: Entry) -> str:
        self.hashed.append(entry.path.name)
        return self.hashes[entry.path]

    def resolve(self, family: str, intent: Intent, faces: list[str] | None = None) -> ResolvedFiles | Missing:
        roots = {name: [self.folder / name] for name in ("ipadapter", "clip_vision", "loras")}
        return resolve(Index().scan(roots), family, intent, self.sha256, faces)


def chosen(found: ResolvedFiles | Missing) -> ResolvedFiles:
    assert isinstance(found, ResolvedFiles), found.text
    return found


def missing(found: ResolvedFiles | Missing) -> Missing:
    assert isinstance(found, Missing), found.reason
    return found
