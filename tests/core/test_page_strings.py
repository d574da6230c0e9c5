"""Texts of the page stand in one table: every key that is asked for is there, none is left over, no script has its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import image_prompt
import pytest

JS = Path(image_prompt.__path__[0]) / "web" / "js"
SCRIPTS = sorted(JS.glob("*.js"))
TABLES = sorted((JS / "strings").glob("*.json"))
ENGLISH: dict[str, str] = json.loads((JS / "strings" / "en.json").read_text(encoding="utf-8"))
# text("key") and text(`first.${name}`)
_ASKED = re.compile(r"""\btext\((?:"([^"]+)"|`([^`]+)`)""")
# what shows a text: with a letter of its own in it, it did not come from the table
_OWN = re.compile(
    r"""(?:textContent|title|placeholder|innerText|detail|summary)\s*[:=]\s*["'`][^"'`$]*[A-Za-z]{2}"""
)
_OPTION = re.compile(r"""new Option\(\s*["'`][^"'`]*[A-Za-z]""")


def asked() -> list[str]:
    """Patterns of the keys that scripts ask for; each ${…} stands for one word or more."""
    texts = (path.read_text(encoding="utf-8") for path in SCRIPTS)
    keys = [plain or formed for text in texts for plain, formed in _ASKED.findall(text)]
    return [re.sub(r"\\\$\\\{.*?\\\}(?:\\})?", r"[\\w.]+", re.escape(key)) for key in keys]


def test_every_key_is_in_the_table_and_none_is_left_over():
    patterns = asked()
    assert len(patterns) > 20
    missing = [each for each in patterns if not any(re.fullmatch(each, key) for key in ENGLISH)]
    unused = [key for key in ENGLISH if not any(re.fullmatch(each, key) for each in patterns)]
    assert missing == []
    assert unused == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_shows_words_of_its_own(script: Path):
    text = script.read_text(encoding="utf-8")
    assert _OWN.findall(text) == []
    assert _OPTION.findall(text) == []


def test_words_of_a_scripts_own_are_seen():
    assert _OWN.search('button.textContent = "Reset all"')
    assert _OWN.search("{ title: 'Choose' }")
    assert _OPTION.search('menu.append(new Option("even", 1))')
    assert not _OWN.search('button.textContent = "+"')


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_every_language_is_whole_and_fills_in_the_same(table: Path):
    texts: dict[str, str] = json.loads(table.read_text(encoding="utf-8"))
    assert texts.keys() == ENGLISH.keys()
    for key, text in texts.items():
        assert text.strip()
        assert {*re.findall(r"\{\w+\}", text)} == {*re.findall(r"\{\w+\}", ENGLISH[key])}, key
    languages = re.search(r"const LANGUAGES = (\[.*?\]);", (JS / "strings.js").read_text(encoding="utf-8"))
    assert languages
    assert table.stem in json.loads(languages[1])
