"""Older forms of ids of which a later version has other inputs: by the names that a queued prompt gives.

For files opened in the page, where inputs have no names, web/js/older_forms.js does the same by position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Node = dict[str, Any]


@dataclass(frozen=True)
class OldForm:
    """mark: an input that only the older form has; without: one that only the later one has.

    here: the id that serves it, '' for the same one. renamed: inputs, and their names of today. added: inputs that it
    lacks.
    """

    mark: str = ""
    without: str = ""
    here: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    added: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def matches(self, inputs: Mapping[str, Any]) -> bool:
        return (not self.mark or self.mark in inputs) and (not self.without or self.without not in inputs)


_HUB = {"clip_vision": "google/siglip-so400m-patch14-384"}
_NO_ENCODER = OldForm(without="clip_vision", added=_HUB)
OLD_FORMS: dict[str, OldForm] = {
    "ApplyFluxIPAdapter": OldForm("strength_model", "ip_scale", renamed={"strength_model": "ip_scale"}),
    "IPAdapterFluxLoader": _NO_ENCODER,
    "IPAdapterFluxLoaderAdvanced": _NO_ENCODER,
    "ApplyIPAdapterSD3": OldForm("image", "image_embed", "ImagePromptLegacySD3Apply"),
    "AV_IPAdapter": OldForm("noise", "weight_type", "ImagePromptLegacyArtVenture"),
}


def renew_form(node: Node, classes: Mapping[str, type]) -> None:
    """Change a node of a queued prompt in place, unless the pack that has its id today is another than this one."""
    form = OLD_FORMS.get(str(node.get("class_type")))
    if form is None or not form.matches(node["inputs"]) or form.mark in declared_inputs(classes, node):
        return
    if form.here in classes:
        node["class_type"] = form.here
    inputs = {form.renamed.get(name, name): value for name, value in node["inputs"].items()}
    node["inputs"] = {**form.added, **inputs}


def declared_inputs(classes: Mapping[str, type], node: Node) -> set[str]:
    """Of the node that the host has under this id."""
    sections: Mapping[str, Mapping[str, Any]] = getattr(
        classes.get(node["class_type"]), "INPUT_TYPES", dict
    )()
    return {name for section in sections.values() for name in section}
