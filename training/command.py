"""The command: from a config file to a trained adapter. Checks what it can before torch and ComfyUI are loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..__main__ import find_comfyui, require_model, start_comfyui, start_logging
from ..ipadapter_core.errors import ImagePromptError
from .job import parse
from .launch import as_launched

log = logging.getLogger("image_prompt.training")


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 after an error that the user can mend, logged as a sentence. 130 after Ctrl-C, with all steps saved."""
    try:
        own, job, config = parse(arguments)
        start_logging(own.verbose)
        config = as_launched(config)
        job.require_files()
        root = find_comfyui(own.comfyui)
        for kind, name in (("checkpoints", job.checkpoint), ("clip_vision", job.clip_vision)):
            require_model(root, kind, name)
        log.info("starting ComfyUI's code")
        start_comfyui(root, own.cpu)
        # only now: it imports torch and the host's code
        from .running import train

        return train(job, config)
    except (ImagePromptError, ImportError) as error:
        log.error("%s", error)
        return 1
