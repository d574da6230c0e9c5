"""What the registry's archive holds: .comfyignore leaves out nothing that the host finds by path."""

from fnmatch import fnmatch
from pathlib import Path

import image_prompt
import pytest

ROOT = Path(image_prompt.__path__[0])
PATTERNS = (ROOT / ".comfyignore").read_text(encoding="utf-8").split()


def left_out(path: str) -> bool:
    return any(path.startswith(p) if p.endswith("/") else fnmatch(path, p) for p in PATTERNS)


@pytest.mark.parametrize("folder", ["web", "workflows", "locales", "subgraphs"])
def test_what_the_host_finds_by_path_is_in_the_archive(folder: str):
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if left_out(path)] == []


def test_tests_and_pictures_of_the_documentation_are_left_out():
    assert left_out("tests/core/test_archive.py")
    assert left_out("docs/banner.png")
    assert not left_out("docs/nodes.md")
