"""Builds each scene in the page, and takes its picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from bootstrap import ROOT
from page import browser
from page.driver import Driver
from PIL import Image
from playwright.sync_api import sync_playwright

from . import graph
from .scenes import SCENES, Beside, Scene

FOLDER = ROOT / "web" / "docs" / "images"
VIEW = {"width": 1700, "height": 1900}
MARGIN, GAP, ROW = 14, 40, 24  # pixels
WIDEST, LARGEST = 900, 60_000  # pixels, bytes
QUALITIES = (90, 82, 74, 66)

ADD = """({kind, values, size, open}) => {
    const node = LiteGraph.createNode(kind);
    if (!node) throw new Error(`no node ${kind}`);
    app.graph.add(node);
    for (const [name, value] of Object.entries(values)) {
        const widget = node.widgets.find((each) => each.name === name);
        widget.value = value;
        widget.callback?.(value, app.canvas, node);
    }
    if (size) node.setSize(size);
    if (!open) node.collapse();
    return node.id;
}"""
JOIN = """([from, output, to, input]) => {
    const [sender, taker] = [from, to].map((id) => app.graph.getNodeById(id));
    const [slot, place] = [
        sender.outputs.findIndex((each) => each.name === output), taker.inputs.findIndex((each) => each.name === input)];
    if (slot < 0 || place < 0) throw new Error(`${sender.type}.${output} to ${taker.type}.${input}`);
    sender.connect(slot, taker, place);
}"""
PLACE = "([id, x, y]) => { app.graph.getNodeById(id).pos = [x, y]; app.canvas.setDirty(true, true); }"
SHOW = """([id, names]) => {
    const images = names.map((name) => ({ filename: `${name}.png`, subfolder: "", type: "input" }));
    const done = { node: String(id), display_node: String(id), output: { images }, prompt_id: "" };
    app.api.dispatchCustomEvent("executed", done);
}"""
BOX = """(id) => {
    const { left, top, right, bottom } = document.querySelector(`[data-node-id="${id}"]`).getBoundingClientRect();
    return [left, top, right, bottom];
}"""
Box = tuple[float, float, float, float]


class Studio:
    """A page with Nodes 2.0, as a fresh install has it."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.page = driver, driver.page

    def take(self, scene: Scene) -> Image.Image:
        self.driver.clear()
        main = self.add(Beside(scene.node, (), scene.values, True, scene.shown, scene.size))
        before = [self.add(each) for each in scene.before]
        after = [self.add(each) for each in scene.after]
        for node, each in zip(before, scene.before, strict=True):
            self.join(each, node, main)
        for node, each in zip(after, scene.after, strict=True):
            self.join(each, main, node)
        self.driver.settle()
        if scene.press:
            self.page.locator(scene.press).first.click()
        if scene.run:
            self.page.evaluate("() => app.queuePrompt(0)")
            self.page.locator(scene.run).first.wait_for(timeout=60_000)
        for node, each in [
            (main, scene),
            *zip(before, scene.before, strict=True),
            *zip(after, scene.after, strict=True),
        ]:
            if each.shown:
                self.page.evaluate(SHOW, [node, list(each.shown)])
        self.page.wait_for_timeout(1500)  # pictures are being loaded
        self.arrange(before, main, after)
        return self.shot([main, *before, *after])

    def add(self, beside: Beside) -> int:
        given = {"kind": beside.kind, "values": dict(beside.values), "size": beside.size, "open": beside.open}
        return self.page.evaluate(ADD, given)

    def join(self, beside: Beside, sender: int, taker: int) -> None:
        for output, taken in beside.joins:
            self.page.evaluate(JOIN, [sender, output, taker, taken])

    def box(self, node: int) -> Box:
        left, top, right, bottom = self.page.evaluate(BOX, node)
        return left, top, right, bottom

    def arrange(self, before: list[int], main: int, after: list[int]) -> None:
        """Three columns, from left to right."""
        x = 40.0
        for column in (before, [main], after):
            boxes = [self.box(node) for node in column]
            y = 60.0
            for node, (_, top, _, bottom) in zip(column, boxes, strict=True):
                self.page.evaluate(PLACE, [node, x, y])
                y += bottom - top + ROW
            if column:
                x += max(right - left for left, _, right, _ in boxes) + GAP
        self.driver.settle()

    def shot(self, nodes: list[int]) -> Image.Image:
        boxes = [self.box(node) for node in nodes]
        left, top = (min(box[n] for box in boxes) - MARGIN for n in (0, 1))
        right, bottom = (max(box[n] for box in boxes) + MARGIN for n in (2, 3))
        clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        self.page.mouse.move(5, VIEW["height"] - 5)  # nothing is pointed at
        return Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB")


def write(picture: Image.Image, path: Path) -> int:
    """As WebP, in the best quality that is small enough. Its size in bytes."""
    if picture.width > WIDEST:
        raise SystemExit(f"{path.name} is {picture.width} pixels wide; {WIDEST} are allowed")
    for quality in QUALITIES:
        picture.save(path, quality=quality, method=6)
        if (size := path.stat().st_size) <= LARGEST:
            return size
    raise SystemExit(f"{path.name} has {size} bytes; {LARGEST} are allowed")


def take(address: str, names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium: Any = browser.launch(playwright)
        driver = Driver(chromium.new_page(viewport=VIEW), address)
        driver.use_nodes_2(True)
        studio = Studio(driver)
        for scene in SCENES:
            if not names or scene.node in names:
                picture = studio.take(scene)
                size = write(picture, FOLDER / f"{scene.node}.webp")
                print(f"{scene.node}: {picture.width} x {picture.height}, {size / 1000:.0f} kB", flush=True)
        if not names or graph.NAME in names:
            graph.take(chromium, address)
        chromium.close()
