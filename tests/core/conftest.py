"""The core is tested where there is no ComfyUI: here importing it raises, whatever this process has already loaded."""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from pathlib import Path

import image_prompt
import pytest

HOST = ("comfy", "comfy_api", "comfy_extras", "execution", "folder_paths", "nodes", "server")


# The older ids' arithmetic needs no host, and the packages that it lies in do: they are empty here.
AROUND = {
    f"image_prompt.{folder.replace('/', '.')}": Path(image_prompt.__path__[0]) / folder
    for folder in ("nodes", "nodes/compat")
}


def of_the_host(name: str) -> bool:
    return name.split(".")[0] in HOST


class NoHost(MetaPathFinder):
    """Asked before any other finder, it finds none of the host's modules."""

    def find_spec(self, fullname, path=None, target=None):
        if of_the_host(fullname):
            raise ModuleNotFoundError(
                f"{fullname} is ComfyUI's. Tests in tests/core run without it; one that needs it goes to tests/host.",
                name=fullname,
            )
        return None


def empty_packages() -> dict[str, types.ModuleType]:
    made = {name: types.ModuleType(name) for name in AROUND}
    for name, package in made.items():
        package.__path__ = [str(AROUND[name])]
    return made


@contextmanager
def no_host() -> Iterator[None]:
    """Hide what tests of other folders have loaded, as all of them run in one process."""
    hidden = {name: module for name, module in sys.modules.items() if of_the_host(name) or name in AROUND}
    finder = NoHost()
    for name in hidden:
        del sys.modules[name]
    sys.modules.update(empty_packages())
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in AROUND:
            del sys.modules[name]
        sys.modules.update(hidden)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """While the test modules of this folder are imported."""
    with no_host():
        return (yield)


@pytest.fixture(scope="module", autouse=True)
def _without_comfyui():
    """While their tests run."""
    with no_host():
        yield
