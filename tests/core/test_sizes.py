"""No room gets crowded: how long functions and files are, and how much a function is told."""

import ast
from pathlib import Path

import image_prompt
import pytest

ROOT = Path(image_prompt.__path__[0])
LONGEST_FUNCTION, LONGEST_FILE, MOST_PARAMETERS = 40, 350, 8
SCHEMA = "INPUT_TYPES"
FILES = sorted(
    path.relative_to(ROOT)
    for room in (
        "nodes",
        "training",
        "evaluation",
        "doctor",
        "host",
        "model_files",
        "ipadapter_core",
        "lab",
        "tests",
    )
    for path in (ROOT / room).rglob("*.py")
)


def functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef, bool]]:
    """(name, function, whether it is a method)"""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    return [
        (node.name, node, isinstance(parents.get(node), ast.ClassDef))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]


def parsed(path: Path) -> tuple[str, ast.Module]:
    text = (ROOT / path).read_text(encoding="utf-8")
    return text, ast.parse(text)


@pytest.mark.parametrize("room", sorted({path.parts[0] for path in FILES}))
def test_files_and_functions_are_short(room: str):
    long: list[str] = []
    for path in (path for path in FILES if path.parts[0] == room):
        text, tree = parsed(path)
        if text.count("\n") > LONGEST_FILE:
            long.append(f"{path}: {text.count(chr(10))} lines")
        for name, node, _ in functions(tree):
            first = (
                node.body[0] if path.parts[0] == "nodes" else node
            )  # inputs of nodes are as many as they are
            lines = (node.end_lineno or 0) - first.lineno + 1
            if lines > LONGEST_FUNCTION and name != SCHEMA:
                long.append(f"{path}:{node.lineno} {name}: {lines} lines")
    assert not long


def test_functions_are_told_no_more_than_a_reader_can_hold():
    """Methods of nodes get what their inputs are; wrappers what the host hands them."""
    many: list[str] = []
    for path in (path for path in FILES if path.parts[0] not in ("tests", "lab")):
        for name, node, method in functions(parsed(path)[1]):
            count = len(node.args.args) + len(node.args.kwonlyargs) - method
            if count > MOST_PARAMETERS and not (method and path.parts[0] == "nodes"):
                many.append(f"{path}:{node.lineno} {name}: {count}")
    assert not many
