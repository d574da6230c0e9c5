"""The host is started before any test module is imported; this repository is the package `image_prompt`."""

from bootstrap import pack_package, start_host

pack_package()
HOST = start_host()


def pytest_report_header() -> str:
    return f"ComfyUI host: {HOST}"
