"""The README's picture of a graph: template 02 in the page, with the picture that every ComfyUI has in its input folder."""

from __future__ import annotations

import io
import json
from typing import Any

from bootstrap import ROOT
from page.driver import Driver
from PIL import Image

NAME = "graph"
FILE = ROOT / "docs" / "graph.png"
TEMPLATE = ROOT / "workflows" / "02 Full control.json"
VIEW, SCALE = {"width": 2000, "height": 1300}, 1.5
COLOURS = 256
# pixels: around the nodes, and of the page's own bars
MARGIN, BARS = 12, 110

# all but the note in view, at its own size; (left, top, right, bottom) on the screen
FRAME = """([margin, bars]) => {
    const boxes = app.graph._nodes.filter((node) => node.type !== "MarkdownNote").map((node) => node.getBounding());
    const [left, top] = [0, 1].map((n) => Math.min(...boxes.map((box) => box[n])));
    const [right, bottom] = [0, 1].map((n) => Math.max(...boxes.map((box) => box[n] + box[n + 2])));
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [bars - left, bars - top];
    app.canvas.setDirty(true, true);
    return [bars - margin, bars - margin, right - left + bars + margin, bottom - top + bars + margin];
}"""


def take(chromium: Any, address: str) -> None:
    driver = Driver(chromium.new_page(viewport=VIEW, device_scale_factor=SCALE), address)
    driver.use_nodes_2(True)
    driver.clear()
    driver.open(json.loads(TEMPLATE.read_text(encoding="utf-8")))
    driver.page.wait_for_timeout(3000)  # pictures are being loaded
    left, top, right, bottom = driver.page.evaluate(FRAME, [MARGIN, BARS])
    driver.page.mouse.move(5, VIEW["height"] - 5)  # nothing is pointed at
    driver.settle()
    clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    picture = Image.open(io.BytesIO(driver.page.screenshot(clip=clip))).convert("RGB")
    # kmeans: else thin lines lose their hues
    picture.quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE).save(FILE, optimize=True)
    print(f"{FILE.name}: {picture.width} x {picture.height}, {FILE.stat().st_size / 1000:.0f} kB", flush=True)
