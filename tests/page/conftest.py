"""The real page in Chromium, on the host that COMFYUI_PATH names, with this pack alone in a base directory of its own.

PAGE_PYTHON: an interpreter with the host's packages. PAGE_FRONTEND: the `static` folder of another frontend package.
"""

import os

import pytest
from page.browser import launch
from page.driver import Driver
from page.server import running, wrong_files

MODES = {"classic": False, "nodes 2": True}


def pytest_collection_modifyitems(items):
    """A page is loaded once for each mode."""
    items.sort(key=lambda item: getattr(getattr(item, "callspec", None), "params", {}).get("driver", ""))


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    host = os.environ.get("COMFYUI_PATH")
    assert host, "COMFYUI_PATH must name the checkout of ComfyUI whose page is tested"
    base, frontend = tmp_path_factory.mktemp("base"), os.environ.get("PAGE_FRONTEND")
    with wrong_files() as mirror, running(host, base, frontend, mirror) as at:
        yield at


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


@pytest.fixture(scope="session", params=[*MODES])
def loaded(request, address, browser):
    driver = Driver(browser.new_page(viewport={"width": 1500, "height": 1300}), address)
    if not driver.use_nodes_2(MODES[request.param]):
        pytest.skip(f"this page has no {request.param}")
    yield driver
    driver.page.close()


@pytest.fixture
def driver(loaded):
    """An empty graph; afterwards the page must have had no error."""
    loaded.clear()
    yield loaded
    assert loaded.errors == []
