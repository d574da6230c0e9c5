"""The pages: links, anchors and templates that exist, a short README, and messages as the source has them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import image_prompt
import pytest

ROOT = Path(image_prompt.__path__[0])
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
HELP = ROOT / "web" / "docs"
PAGES = [README, ROOT / "CONTRIBUTING.md", *DOCS, *sorted(HELP.rglob("*.md"))]
MOST_WORDS = 1000

_CODE = re.compile(r"^```.*?^```|^ {4}.*?$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TARGET = re.compile(r"\]\((?:<([^>\n]*)>|([^)\s]*))\)")
_HEADING = re.compile(r"^#{1,6} +(.*?) *$", re.MULTILINE)
_TEMPLATE = re.compile(r"\*\*(\d\d [^*\n]+)\*\*")
SOURCES = ("host", "nodes", "model_files", "doctor", "training", "evaluation", "ipadapter_core")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """(file, anchor) of each relative link of a page; the anchor is '' where there is none.

    ComfyUI resolves those of help pages from web/docs, those of a language in a folder below it too.
    """
    folder = HELP if page.is_relative_to(HELP) else page.parent
    text = _COMMENT.sub("", _CODE.sub("", read(page)))
    for angled, plain in _TARGET.findall(text):
        target, _, anchor = unquote(angled or plain).partition("#")
        if not re.match(r"[a-z]+:", target):
            yield (folder / target if target else page).resolve(), anchor


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them: lower case, without punctuation, hyphens for spaces."""
    headings = _HEADING.findall(re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rendered_words(text: str) -> int:
    """What a reader sees, tables and commands included: no comments, no addresses of links and pictures, no marks."""
    text = _TARGET.sub("]", _COMMENT.sub("", text))
    text = re.sub(r"^\|[-| :]+\|$", "", text, flags=re.MULTILINE)
    return sum(any(map(str.isalnum, word)) for word in text.replace("|", " ").split())


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_and_anchors_resolve(page: Path):
    for path, anchor in links(page):
        assert path.exists(), f"{named(page)} links {path}"
        if anchor:
            assert anchor in anchors(path), (
                f"{named(page)} links #{anchor} of {path.name}: {sorted(anchors(path))}"
            )


def test_a_broken_link_and_a_wrong_anchor_are_seen(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A (b), c\n\n[x](#a-b-c) [y](<gone file.md>) `[z](code.md)` [w](https://w.org)\n", encoding="utf-8"
    )
    assert list(links(page)) == [(page.resolve(), "a-b-c"), (tmp_path.resolve() / "gone file.md", "")]
    assert anchors(page) == {"a-b-c"}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_template_named_exists(page: Path):
    for name in _TEMPLATE.findall(read(page)):
        assert (ROOT / "workflows" / f"{name}.json").is_file(), f"{named(page)} names template {name}"


def test_the_readme_names_every_template():
    linked = {path for path, _ in links(README)}
    assert {path.resolve() for path in (ROOT / "workflows").glob("*.json")} <= linked


def test_the_readme_is_short():
    assert rendered_words(read(README)) <= MOST_WORDS
    assert rendered_words("![a b](c.png) | d | [e](<f g.md>)\n|---|---|\n\n<!-- h -->\n") == 4


def test_every_page_is_reached_from_the_readme():
    linked = {path for path, _ in links(README)}
    assert {page.resolve() for page in DOCS} <= linked


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_a_page_says_first_what_it_is_for(page: Path):
    title, line = read(page).split("\n\n", 2)[:2]
    assert title.startswith("# ")
    assert line[0] not in "#|!-*<", f"{page.name} begins with {line[:20]}"


# --- messages ----------------------------------------------------------------------------------------------------


def messages() -> list[str]:
    """The first cell of each row of a table of messages in trouble.md, without its marks."""
    return re.findall(r"^\| `([^`]+)` \|", read(ROOT / "docs" / "trouble.md"), re.MULTILINE)


@cache
def texts() -> str:
    """All texts of the source, '…' in the place of what a message fills in."""
    files = [path for room in SOURCES for path in sorted((ROOT / room).rglob("*.py"))]
    return "\n".join(text for path in files for text in _texts(ast.parse(read(path))))


def _texts(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


@pytest.mark.parametrize("message", messages())
def test_the_fixed_words_of_a_quoted_message_are_in_the_source(message: str):
    """Each run of words between the places that differ; single words prove too little."""
    runs = [run.strip(" .,:;()'") for run in message.split("…")]
    fixed = [run for run in runs if len(run.split()) > 1]
    assert fixed, f"no fixed words in {message!r}"
    for run in fixed:
        assert run in texts(), f"no message of the source has: {run}"


def test_there_are_messages_to_compare():
    assert len(messages()) > 12


def test_the_managers_draft_names_the_older_ids():
    """docs/publishing.md: the ids of node_list.json that are not our own, nor of a pack that is maintained."""
    (draft,) = re.findall(r"```json\n(.*?)```", read(ROOT / "docs" / "publishing.md"), re.DOTALL)
    ids = json.loads(read(ROOT / "node_list.json"))
    assert json.loads(draft)["preemptions"] == [
        name for name in ids if not name.startswith(("ImagePrompt", "AV_"))
    ]
