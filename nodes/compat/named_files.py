"""Adapters and encoders by the names that loaders of older packs hold, and what was not loaded by name at all."""

from __future__ import annotations

import logging

from ... import host
from ...host import folders
from ...ipadapter_core.errors import MissingFileError
from ...ipadapter_core.spec import AdapterSpec, Feature
from ...model_files.encoder_names import EncoderNeed, encoder_for
from ...model_files.nearest import match_name
from .. import names
from .values import Part, pipeline

log = logging.getLogger(__name__)


def adapter_part(name: str) -> Part:
    """The adapter that a graph means, with its file. Raises MissingFileError."""
    path = names.adapter_path(name)
    return {"file": path, "model": host.load_adapter(path, folders.adapter_variant(path))}


def encoder_part(name: str, spec: AdapterSpec) -> Part:
    """The encoder of this name; where it is not installed, one of the same kind that the adapter reads.

    name: of a file, or of a repository of the hub, which is never asked. Raises MissingFileError.
    """
    wanted = match_name(name, folders.menu_of("clip_vision"))
    if wanted is None:
        wanted = _same_encoder(name, spec)
    path = folders.model_path("clip_vision", wanted)
    return {"file": path, "model": host.load_clip_vision(path)}


def _same_encoder(name: str, spec: AdapterSpec) -> str:
    entries = folders.model_index().scan(folders.model_folders("clip_vision"))
    reads = spec.feature is not Feature.NONE
    need = EncoderNeed(frozenset({spec.encoder} if reads else ()), frozenset((spec.feature,)))
    found, text = encoder_for(name, need, entries)
    if found is None:
        raise MissingFileError(text)
    log.info("Image Prompt: %s", text)
    return str(found.path)


def adapter_and_encoder(adapter: str, encoder: str) -> dict[str, Part]:
    """A pipeline of both, as the unified loaders give it."""
    part = adapter_part(adapter)
    return pipeline(part, encoder_part(encoder, part["model"].spec))
