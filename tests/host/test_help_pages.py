"""Help pages of the nodes: one in each language, which names what the node has, a template that has it, and a picture."""

import json
import re
from pathlib import Path

import pytest
from bootstrap import ROOT
from helpers import workflows
from helpers.workflows import FILES
from image_prompt.nodes import NODE_CLASS_MAPPINGS as OURS
from PIL import Image

DOCS = ROOT / "web" / "docs"
TRANSLATED = ("zh", "ja")
OWN = [node_id for node_id, node in OURS.items() if not getattr(node, "DEPRECATED", False)]
WIDEST, LARGEST, ALL = 900, 60_000, 1_200_000  # pixels, bytes of one picture, bytes of all
STEMS = ("input", "output", "weight", "image_prompt", "mask", "image")
RANGES = {f"{stem}_{n}" for stem in STEMS for n in range(12)}  # `image_2` … `image_6`

every_node = pytest.mark.parametrize("node_id", OWN)
every_language = pytest.mark.parametrize("language", ["en", *TRANSLATED])
translated = pytest.mark.parametrize("language", TRANSLATED)


def path_of(node_id: str, language: str) -> Path:
    """Where the page of ComfyUI looks for it; the English one is for all languages without a page."""
    return DOCS / (f"{node_id}.md" if language == "en" else f"{node_id}/{language}.md")


def read(node_id: str, language: str) -> str:
    return path_of(node_id, language).read_text(encoding="utf-8")


def title(node_id: str, language: str) -> str:
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    return texts[node_id]["display_name"]


def outline(page: str) -> list[str]:
    """The kind of each line, wrapped ones as one, with the first words of a row that names inputs."""
    rows = [line.split(" ")[0] for line in page.splitlines() if line.startswith(("#", "|", "- ", "!["))]
    return [row[:2] if row.startswith("![") else row for row in rows]


def code(page: str) -> list[str]:
    return sorted(set(re.findall(r"`[^`\n]+`|^ {4}.*$", page, re.MULTILINE)))


def messages(page: str) -> list[str]:
    """What stands in graphs, menus and messages in English: in italics, two words or more."""
    text = re.sub(r"`[^`\n]+`", "", page)
    found = re.findall(r"(?<![*\w])\*([^*\n]+)\*(?!\*)", text)
    return sorted({each for each in found if each.replace("…", "").isascii() and " " in each})


@every_language
@every_node
def test_every_node_has_a_help_page_that_names_its_inputs(node_id, language):
    page = read(node_id, language)
    assert page.startswith(f"# {title(node_id, language)}\n")
    for name in [*workflows.inputs_of(OURS[node_id]), *getattr(OURS[node_id], "RETURN_NAMES", ())]:
        assert f"`{name}`" in page or name in RANGES
    titles = {path.stem for path in FILES}
    assert [title for title in titles if f"**{title}**" in page], "no example"


@translated
@every_node
def test_a_translated_page_says_what_the_english_one_says(node_id, language):
    """As many rows, headings and points, the same code, and the same messages, which the server gives in English."""
    english, page = read(node_id, "en"), read(node_id, language)
    assert outline(page) == outline(english)
    assert code(page) == code(english)
    assert [each for each in messages(english) if len(each.split()) > 3 and each not in page] == []


@every_language
@every_node
def test_a_page_shows_its_node(node_id, language):
    """By a path from web/docs, from where ComfyUI's page resolves it, whatever folder the Markdown lies in."""
    assert re.findall(r"!\[[^]]*\]\(([^)]*)\)", read(node_id, language)) == [f"images/{node_id}.webp"]
    path = DOCS / "images" / f"{node_id}.webp"
    with Image.open(path) as picture:
        assert picture.format == "WEBP"
        assert 200 < picture.width <= WIDEST
    assert path.stat().st_size <= LARGEST


def test_there_are_no_other_pages_and_pictures():
    found = {path.relative_to(DOCS) for path in DOCS.rglob("*") if path.is_file()}
    pages = {
        path_of(node_id, language).relative_to(DOCS) for node_id in OWN for language in ("en", *TRANSLATED)
    }
    assert found == pages | {Path("images", f"{node_id}.webp") for node_id in OWN}
    assert sum(path.stat().st_size for path in (DOCS / "images").iterdir()) <= ALL
