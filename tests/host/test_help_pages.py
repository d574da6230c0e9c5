"""Help pages of the nodes: each names its inputs and outputs, and a template that has it."""

import pytest
from bootstrap import ROOT
from helpers import workflows
from helpers.workflows import FILES
from image_prompt.nodes import NODE_CLASS_MAPPINGS as OURS


@pytest.mark.parametrize("node_id", [i for i, node in OURS.items() if not getattr(node, "DEPRECATED", False)])
def test_every_node_has_a_help_page_that_names_its_inputs(node_id):
    page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {OURS[node_id].TITLE}\n")
    stems = ("input", "output", "weight", "image_prompt", "mask", "image")
    ranges = {f"{stem}_{n}" for stem in stems for n in range(12)}
    for name in [*workflows.inputs_of(OURS[node_id]), *getattr(OURS[node_id], "RETURN_NAMES", ())]:
        assert f"`{name}`" in page or name in ranges
    titles = {path.stem for path in FILES}
    assert [title for title in titles if f"**{title}**" in page], "no example"
