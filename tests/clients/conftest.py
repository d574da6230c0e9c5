"""Programs that use ComfyUI as their engine: what they ask this pack, and the graphs that they send, on the real host.

The wheel's host has no server and no executor: COMFYUI_PATH names a checkout.
"""

import importlib.util
import os

from bootstrap import start_host

start_host()

if not os.environ.get("COMFYUI_PATH") or importlib.util.find_spec("execution") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import pytest
    from clients import small_files
    from clients.engine import Engine

    @pytest.fixture(scope="session")
    def files(tmp_path_factory):
        return small_files.write(tmp_path_factory.mktemp("models"))

    @pytest.fixture
    def engine(files, monkeypatch):
        """The host with them."""
        small_files.use(files, monkeypatch)
        return Engine(monkeypatch)
