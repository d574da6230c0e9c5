"""Real packs beside ours: each graph is right before and after, or says a sentence; at weight 0 it is the pack alone.

Ends with the table, printed, and written to the file that NEIGHBOURS_TABLE names.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from neighbours import cases, packs, table
from neighbours.measure import measure

pytestmark = pytest.mark.neighbours


@pytest.fixture(scope="module")
def lines():
    found: list[table.Line] = []
    yield found
    text = table.markdown(found)
    print("\n" + text)
    if named := os.environ.get("NEIGHBOURS_TABLE"):
        Path(named).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("case", cases.ALL, ids=lambda case: case.name)
def test_a_graph_beside(case, lines):
    for pack in case.packs:
        packs.load(pack)
    several = max(2, case.pictures)
    line = table.Line(
        measure(case),
        measure(replace(case, mask=True)),
        measure(replace(case, images=several, pictures=several)),
    )
    lines.append(line)
    assert line.plain.effect > 0.1
    assert not line.wrong
