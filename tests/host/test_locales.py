"""The page's languages: every text of the English source is there in each of them, and none is English by mistake."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from image_prompt.lab import locales

LANGUAGES = ("zh", "zh-TW", "ja", "ko", "fr", "de", "es", "pt-BR", "ru")
FILES = ("nodeDefs.json", "settings.json", "main.json")
PAGE = locales.PAGE / "strings"


def read(path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def texts(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from texts(value, (*path, key))
    else:
        yield path, content


def tables(language: str) -> dict[str, dict[tuple[str, ...], str]]:
    found = {name: dict(texts(read(locales.LOCALES / language / name))) for name in FILES}
    return found | {"page": dict(texts(read(PAGE / f"{language}.json")))}


ENGLISH = tables("en")


def test_the_english_source_is_what_the_nodes_and_scripts_say():
    """Else: python -m lab.locales, and then the other languages."""
    assert {name: read(locales.LOCALES / "en" / name) for name in FILES} == locales.english()


def test_every_language_is_listed_for_the_page():
    script = (locales.PAGE / "strings.js").read_text(encoding="utf-8")
    listed = re.search(r"LANGUAGES = \[([^\]]*)\]", script)
    assert listed is not None
    assert set(re.findall(r'"([^"]+)"', listed[1])) == {"en", *LANGUAGES}
    assert {path.name for path in locales.LOCALES.iterdir()} == {"en", *LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_missing_empty_or_left_over(language: str):
    for name, table in tables(language).items():
        assert table.keys() == ENGLISH[name].keys(), name
        # an empty text may stand only where English has none
        assert [
            path for path, text in table.items() if bool(text.strip()) != bool(ENGLISH[name][path].strip())
        ] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_placeholders_values_and_names_of_nodes_are_kept(language: str):
    """{name} in a text, numbers, and what stands in graphs and menus in English."""
    for name, table in tables(language).items():
        for path, text in table.items():
            wanted = ENGLISH[name][path]
            assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", wanted)), path
            digits = [set(re.findall(r"\d+(?:\.\d+)?", each.replace(",", "."))) for each in (wanted, text)]
            assert digits[0] <= digits[1], (path, text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_long_texts_are_translated(language: str):
    """A sentence of four words or more is never the English one."""
    same = [
        path
        for name, table in tables(language).items()
        for path, text in table.items()
        if text == ENGLISH[name][path] and len(text.split()) >= 4
    ]
    assert same == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_blocks_have_the_names_of_the_bars_and_the_messages(language: str):
    """Which are typed into `blocks`, and so are in no language."""
    node = read(locales.LOCALES / language / "nodeDefs.json")["ImagePromptLayerWeights"]["inputs"]
    blocks = {
        key: each["name"] for key, each in node.items() if key.split("_")[0] in ("input", "middle", "output")
    }
    assert blocks == {key: key.replace("_", " ") for key in blocks}
    assert len(blocks) == 19
