"""The two settings of the compatibility nodes (web/js/image_prompt.js)."""

from __future__ import annotations

from ...host.settings import Setting

EXACT_LEGACY = Setting("ImagePrompt.ExactLegacyResults", "IMAGE_PROMPT_EXACT_LEGACY", False)
COMPATIBILITY = Setting("ImagePrompt.CompatibilityNodes", "IMAGE_PROMPT_COMPAT", True)


def exact_legacy() -> bool:
    """Whether the compatibility nodes repeat the older pack's errors too."""
    return EXACT_LEGACY.value()


def enabled() -> bool:
    """Whether the compatibility nodes are registered; read once, at start."""
    return COMPATIBILITY.value()
