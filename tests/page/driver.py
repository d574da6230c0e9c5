"""What tests do in the page: nodes, their values, the elements drawn on them, the pointer."""

from __future__ import annotations

from typing import Any

PATIENCE = 300_000  # milliseconds, on a busy machine
TOAST = ".p-toast-message, [data-testid=toast]"  # to 1.57, and from 1.58 on
# nodes that the page's undo knows of
_TRACKED = "app.extensionManager.workflow.activeWorkflow.changeTracker.activeState.nodes.length"


class Driver:
    """A loaded page. errors: what it threw since `clear`."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.errors = page, []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.errors.append(str(error)[:300]))
        # what an extension throws, the page catches and logs
        page.on("console", self._heard)
        # clicks bring a node to the front of the page's own list
        page.add_init_script("window.graphNodes = () => [...app.graph._nodes].sort((a, b) => a.id - b.id)")
        page.goto(address)
        page.wait_for_function(
            "() => Boolean(window.app?.graph && app.canvas && app.extensionManager?.setting &&"
            " LiteGraph.registered_node_types.ImagePromptApply)",
            timeout=PATIENCE,
        )
        page.wait_for_timeout(1500)  # the first workflow of a fresh user is still being opened

    def _heard(self, message: Any) -> None:
        if message.type == "error" and "image" in message.text and "extension" in message.text:
            self.errors.append(message.text[:300])

    def use_nodes_2(self, on: bool) -> bool:
        """Switch it, where the page offers it. Returns whether it is as asked."""
        name = "Comfy.VueNodes.Enabled"
        offered = self.page.evaluate(
            "(name) => app.extensionManager.setting.settings?.[name]?.type === 'boolean'", name
        )
        if offered:
            self.set_setting(name, on)
        return offered or not on

    def clear(self) -> None:
        view = {"ds": {"offset": [300, 80], "scale": 1}}
        empty = {
            "nodes": [],
            "links": [],
            "version": 0.4,
            "last_node_id": 0,
            "last_link_id": 0,
            "extra": view,
        }
        self.page.evaluate("(empty) => app.loadGraphData(empty)", empty)
        self.page.keyboard.press("Escape")
        self.page.evaluate("() => app.extensionManager.toast?.removeAll?.()")
        self.page.locator(TOAST).first.wait_for(state="detached")
        self.errors.clear()

    # --- nodes, by their index in the order in which they were made ---

    def add(self, kind: str, x: int = 100, y: int = 40) -> None:
        self.page.evaluate(
            "([kind, x, y]) => { const node = LiteGraph.createNode(kind); node.pos = [x, y]; app.graph.add(node); }",
            [kind, x, y],
        )
        self.settle()
        for _ in range(10):  # a click on an empty place: the page looks at what has changed, for its undo
            self.page.mouse.click(1400, 600)
            self.settle()
            if self.page.evaluate(f"() => {_TRACKED} === app.graph._nodes.length"):
                return
        raise AssertionError(f"the page's undo does not know of the new {kind}")

    def settle(self) -> None:
        """The page places elements when it draws, which a pointer on a panel beside the graph does not make it do."""
        self.page.evaluate("() => app.canvas.setDirty(true, true)")
        self.page.wait_for_timeout(400)

    def values(self, index: int = 0) -> dict[str, Any]:
        """Of the widgets of a node, by name, as the API graph has them."""
        inputs = self.page.evaluate("async () => (await app.graphToPrompt()).output")
        node = self.page.evaluate("(n) => String(graphNodes()[n].id)", index)
        return {name: value for name, value in inputs[node]["inputs"].items() if not isinstance(value, list)}

    def set(self, name: str, value: Any, index: int = 0) -> None:
        """As a user who types it into the widget."""
        self.page.evaluate(
            "([n, name, value]) => { const node = graphNodes()[n], widget = node.widgets.find((w) => w.name === name);"
            " widget.value = value; widget.callback?.(value, app.canvas, node); }",
            [index, name, value],
        )

    def count(self) -> int:
        return self.page.evaluate("() => app.graph._nodes.length")

    def graph(self) -> Any:
        return self.page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")

    def open(self, graph: Any) -> None:
        self.page.evaluate("(graph) => app.loadGraphData(graph)", graph)
        self.settle()

    def copy(self) -> None:
        """The first node, pasted beside it."""
        self.page.evaluate(
            "() => { const node = graphNodes()[0]; app.canvas.deselectAll?.(); app.canvas.selectNode(node);"
            " app.canvas.copyToClipboard(); app.canvas.graph_mouse = [node.pos[0] + 450, node.pos[1]];"
            " app.canvas.pasteFromClipboard(); }"
        )
        self.settle()

    def undo(self) -> None:
        self.page.evaluate("() => document.activeElement?.blur?.()")
        self.page.keyboard.press("Control+z")
        self.page.wait_for_timeout(800)

    def redo(self) -> None:
        self.page.evaluate("() => document.activeElement?.blur?.()")
        self.page.keyboard.press("Control+y")
        self.page.wait_for_timeout(800)

    def queue(self) -> None:
        self.page.evaluate("() => app.queuePrompt(0)")

    def set_setting(self, name: str, value: Any) -> None:
        self.page.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [name, value])
        self.settle()

    def toasts(self) -> list[str]:
        """What the page says at its edge."""
        return self.page.locator(TOAST).all_inner_texts()

    # --- the pointer ---

    def element(self, selector: str, index: int = 0) -> Any:
        """Drawn for the node of this index: widgets stand in the order of the nodes."""
        return self.page.locator(selector).nth(index)

    def box(self, selector: str, index: int = 0) -> tuple[float, float, float, float]:
        """(left, top, width, height) of what is really on the screen."""
        element = self.element(selector, index)
        element.wait_for(state="visible", timeout=10_000)
        found, same = element.bounding_box(), 0
        for _ in range(40):  # the page lays nodes out frame by frame, late on a busy machine
            self.page.evaluate("() => app.canvas.draw(true, true)")
            self.page.wait_for_timeout(100)
            before, found = found, element.bounding_box()
            same = same + 1 if found and found == before else 0
            if same == 3:
                break
        assert found, f"{selector} is not drawn"
        return found["x"], found["y"], found["width"], found["height"]

    def at(self, selector: str, x: float, y: float, index: int = 0) -> tuple[float, float]:
        """Where a place of a drawing, in the units of its viewBox, is on the screen."""
        self.box(selector, index)
        transform = "(svg) => { const { a, d, e, f } = svg.getScreenCTM(); return [a, d, e, f]; }"
        a, d, e, f = self.element(selector, index).evaluate(transform)
        return a * x + e, d * y + f

    def view(self, selector: str, index: int = 0) -> tuple[float, float]:
        """Width and height of a drawing's viewBox."""
        size = "(svg) => [svg.viewBox.baseVal.width, svg.viewBox.baseVal.height]"
        width, height = self.element(selector, index).evaluate(size)
        return width, height

    def node_at(self, index: int = 0) -> tuple[float, float]:
        """A place on the node, below its title, on the screen."""
        script = (
            "(n) => { const { pos } = graphNodes()[n], box = app.canvas.canvas.getBoundingClientRect();"
            " const [x, y] = app.canvas.ds.convertOffsetToCanvas([pos[0] + 135, pos[1] + 20]);"
            " return [box.x + x, box.y + y]; }"
        )
        x, y = self.page.evaluate(script, index)
        return x, y

    def drag(self, *places: tuple[float, float]) -> None:
        """Press at the first place, move over the others, let go."""
        mouse = self.page.mouse
        mouse.move(*places[0])
        mouse.down()
        for place in places[1:]:
            mouse.move(*place, steps=6)
        mouse.up()
        self.settle()
