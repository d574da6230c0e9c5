"""This repository is the package `image_prompt`. The folders whose tests need ComfyUI start it."""

import os

from bootstrap import pack_package

pack_package()


def pytest_report_header() -> str:
    return f"ComfyUI host: {os.environ.get('COMFYUI_PATH', 'installed wheel')}"
