"""The two settings of the compatibility nodes: the page's settings file, and the environment before it."""

import json
import logging
import os
import re
from pathlib import Path

import folder_paths
import image_prompt
import pytest
from image_prompt.nodes import compat
from image_prompt.nodes.compat import settings

PACK = Path(image_prompt.__path__[0])


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Writes what the page's settings panel would."""
    for setting in (settings.EXACT_LEGACY, settings.COMPATIBILITY):
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path), raising=False)

    def write(user="default", **values):
        path = tmp_path / user / "comfy.settings.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({f"ImagePrompt.{key}": value for key, value in values.items()}))
        os.utime(path, ns=(0, 10**9 * (1 + write.count)))
        write.count += 1
        return path

    write.count = 0
    return write


def test_by_default_errors_are_corrected_and_the_ids_are_there(page):
    assert settings.exact_legacy() is False
    assert settings.enabled() is True


def test_the_page_sets_them_and_a_change_is_seen(page):
    page(ExactLegacyResults=True, CompatibilityNodes=False)
    assert (settings.exact_legacy(), settings.enabled()) == (True, False)
    page(ExactLegacyResults=False)
    assert (settings.exact_legacy(), settings.enabled()) == (False, True)


def test_the_file_is_read_once(page, monkeypatch):
    page(ExactLegacyResults=True)
    settings.exact_legacy()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("read again"))
    assert settings.exact_legacy() is True


def test_the_default_user_comes_first(page):
    page(user="anna", ExactLegacyResults=True)
    assert settings.exact_legacy() is True
    page(ExactLegacyResults=False)
    assert settings.exact_legacy() is False


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ImagePrompt.ExactLegacyResults": "yes"}'])
def test_damaged_settings_are_the_defaults(page, text):
    path = page()
    path.write_text(text)
    os.utime(path, ns=(0, 10**12 + len(text)))
    assert settings.exact_legacy() is False


@pytest.mark.parametrize(("text", "value"), [("1", True), ("on", True), ("0", False), ("False", False)])
def test_the_environment_wins(page, monkeypatch, text, value):
    page(ExactLegacyResults=not value, CompatibilityNodes=not value)
    monkeypatch.setenv("IMAGE_PROMPT_EXACT_LEGACY", text)
    monkeypatch.setenv("IMAGE_PROMPT_COMPAT", text)
    assert (settings.exact_legacy(), settings.enabled()) == (value, value)


def test_turned_off_no_id_is_served(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("IMAGE_PROMPT_COMPAT", "0")
    assert compat.register() == {}
    assert caplog.messages == ["Image Prompt: compatibility nodes are turned off; old ids are left alone."]


def test_a_change_of_exact_results_runs_the_nodes_again(monkeypatch):
    node = compat.register()["IPAdapterUnifiedLoader"]
    before = node.IS_CHANGED(preset="PLUS")
    monkeypatch.setenv("IMAGE_PROMPT_EXACT_LEGACY", "1")
    assert node.IS_CHANGED(preset="PLUS") != before


def test_the_page_and_the_server_mean_the_same_settings():
    script = (PACK / "web" / "js" / "image_prompt.js").read_text(encoding="utf-8")
    for setting in (settings.EXACT_LEGACY, settings.COMPATIBILITY):
        message = re.search(rf'id: "{re.escape(setting.id)}".*?defaultValue: (\w+)', script, re.S)
        assert message[1] == str(setting.default).lower()
