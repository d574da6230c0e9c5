// Regions on Image Prompt: Regions: the text in `regions` as a picture's shape on which boxes are dragged and strokes painted.
import { app } from "../../../scripts/app.js";
import { Editor, addStyle, clamp, followed, svg } from "./editor.js";
import { drawRegion, drawSelection } from "./regions_drawing.js";
import { MOST_POINTS, MOST_REGIONS, empty, parse, pointsIn, simplified, write } from "./regions_text.js";
import { Toolbar } from "./regions_tools.js";
import { closeGap, fitSlots } from "./regions_slots.js";
import { text } from "./strings.js";
import { addCurve } from "./weight_curve.js";

const NODE = "ImagePromptRegions";
const NEAR = 8; // how near to a corner a pointer takes it, in pixels of the screen
const SMALLEST = 0.01; // a box that is narrower was a click
let editors = 0;

class RegionsEditor extends Editor {
  constructor(node) {
    super(node, "regions", [300, undefined]);
    this.id = `image-prompt-regions-${editors++}`; // of its masks, which all documents' elements share
    this.chosen = 0;
    this.held = null; // what the pointer holds: { shape, corner: [x, y] or null for all of it, from } or { shape } of a stroke
    this.tools = new Toolbar(this);
    this.root.append(this.tools.chips);
    this.svg = svg("svg", {}, this.root);
    this.root.append(this.tools.row);
    this.svg.addEventListener("pointerdown", (event) => this.press(event));
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) this.svg.addEventListener(end, () => this.release());
    this.svg.addEventListener("pointerleave", () => this.draw());
    this.svg.addEventListener("dblclick", (event) => this.remove(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  get regions() {
    return parse(this.read("regions", ""));
  }

  get size() {
    return [this.read("width", 512), this.read("height", 512)];
  }

  // The text with the regions as `change` leaves them; nothing where the text is none.
  change(change) {
    const regions = this.regions;
    if (!regions) return;
    change(regions, regions[this.chosen]);
    this.write("regions", write(regions));
    this.draw();
  }

  // --- regions ---

  choose(n) {
    this.chosen = n;
    this.draw();
  }

  add() {
    if ((this.regions?.length ?? MOST_REGIONS) >= MOST_REGIONS) return;
    this.chosen = this.regions.length;
    this.change((regions) => regions.push(empty()));
  }

  removeRegion() {
    const count = this.regions?.length ?? 0;
    if (!count) return;
    closeGap(this.node, this.chosen + 1, count);
    this.change((regions) => regions.splice(this.chosen, 1));
  }

  // --- pointer ---

  // In fractions of the picture.
  place(event) {
    const { a, d, e, f } = this.svg.getScreenCTM();
    const [width, height] = this.size;
    return [(event.clientX - e) / a / width, (event.clientY - f) / d / height];
  }

  // Fractions of the picture that a pixel of the screen is.
  get pixel() {
    const { a, d } = this.svg.getScreenCTM();
    return [1 / (Math.abs(a) * this.size[0]), 1 / (Math.abs(d) * this.size[1])];
  }

  press(event) {
    if (event.button !== 0) return;
    this.take(event, this.svg);
    if (this.regions?.length === 0) this.add();
    if (!this.regions) return;
    const at = this.place(event);
    if (this.tools.tool === "box") this.pressBox(at);
    else this.startStroke(at);
  }

  pressBox(at) {
    const corner = this.cornerAt(at);
    if (corner) return void (this.held = corner);
    const found = this.boxAt(at);
    if (found) {
      this.held = { ...found, corner: null, from: at };
      return this.choose(found.region);
    }
    this.change((_, region) => region.shapes.push({ box: [...at, 0, 0] }));
    // until it has a size it is no region: the text has it from the first movement on
    this.held = { region: this.chosen, shape: this.lastShape, corner: [1, 1], from: at, fresh: true };
  }

  get lastShape() {
    return this.regions[this.chosen].shapes.length - 1;
  }

  cornerAt([x, y]) {
    const [px, py] = this.pixel;
    const shapes = this.regions[this.chosen]?.shapes ?? [];
    for (const [shape, { box }] of shapes.entries())
      for (const corner of box ? [[0, 0], [1, 0], [0, 1], [1, 1]] : []) {
        const [cx, cy] = [box[0] + corner[0] * box[2], box[1] + corner[1] * box[3]];
        if (Math.hypot((cx - x) / px, (cy - y) / py) < NEAR) return { region: this.chosen, shape, corner };
      }
    return null;
  }

  // The box under a place: of the chosen region first, then of the later ones.
  boxAt([x, y]) {
    const regions = this.regions;
    for (const region of [this.chosen, ...[...regions.keys()].reverse()])
      for (const [shape, { box }] of [...(regions[region]?.shapes ?? []).entries()].reverse())
        if (box && x >= box[0] && x <= box[0] + box[2] && y >= box[1] && y <= box[1] + box[3]) return { region, shape };
    return null;
  }

  startStroke(at) {
    if (pointsIn(this.regions) >= MOST_POINTS) return this.tools.warn(text("regions.many"));
    const erases = this.tools.tool === "eraser";
    this.change((_, region) => region.shapes.push({ brush: this.tools.brush, points: [at], erases }));
    this.held = { region: this.chosen, shape: this.lastShape };
  }

  move(event) {
    this.pointer = this.place(event);
    if (!this.held) return this.tools.tool === "box" ? this.hint() : this.draw();
    event.stopPropagation();
    const at = this.pointer.map((value) => clamp(value, -0.5, 1.5));
    this.change((regions) => {
      const shape = regions[this.held.region].shapes[this.held.shape];
      if (shape.points) this.extend(regions, shape, at);
      else if (this.held.corner) shape.box = resized(shape.box, this.held, at);
      else shape.box = moved(shape.box, this.held, at);
      this.held.from = at;
    });
  }

  hint() {
    const cursor = !this.regions ? "" : this.cornerAt(this.pointer) ? "nwse-resize" : this.boxAt(this.pointer) ? "move" : "";
    this.svg.style.cursor = cursor;
  }

  extend(regions, { points }, at) {
    const [px, py] = this.pixel;
    const last = points.at(-1);
    const far = Math.hypot((at[0] - last[0]) / px, (at[1] - last[1]) / py) > 3;
    if (far && pointsIn(regions) < MOST_POINTS) points.push(at);
  }

  release() {
    if (!this.held) return;
    const { region, shape } = this.held;
    this.held = null;
    this.change((regions) => {
      const { shapes } = regions[region];
      const { box, points } = shapes[shape];
      if (points) shapes[shape].points = simplified(points, 0.002);
      else if (box[2] < SMALLEST || box[3] < SMALLEST) shapes.splice(shape, 1);
    });
  }

  remove(event) {
    const found = this.tools.tool === "box" && this.regions && this.boxAt(this.place(event));
    if (found) this.change((regions) => regions[found.region].shapes.splice(found.shape, 1));
  }

  // --- drawing ---

  draw() {
    const [width, height] = this.size;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren();
    svg("rect", { class: "all", width, height }, this.svg);
    const regions = this.regions;
    this.chosen = clamp(this.chosen, 0, Math.max(0, (regions?.length ?? 0) - 1));
    this.tools.show(regions);
    if (!regions) return this.sayWrong();
    for (const [n, region] of regions.entries()) drawRegion(this, region, n);
    drawSelection(this, regions[this.chosen]);
    fitSlots(this.node, Math.max(regions.length, 1), MOST_REGIONS);
  }

  sayWrong() {
    const size = Math.min(...this.size) / 24;
    const attributes = { class: "wrong", x: size, y: 2 * size, style: `font-size: ${size}px` };
    svg("text", attributes, this.svg).textContent = text("regions.wrong");
  }
}

function resized([left, top, width, height], held, [x, y]) {
  const [right, bottom] = [left + width, top + height];
  const [across, down] = [held.corner[0] ? left : right, held.corner[1] ? top : bottom];
  held.corner = [x >= across ? 1 : 0, y >= down ? 1 : 0];
  const [ax, ay] = [clamp(x, 0, 1), clamp(y, 0, 1)];
  return [Math.min(ax, across), Math.min(ay, down), Math.abs(ax - across), Math.abs(ay - down)];
}

function moved([left, top, width, height], { from }, [x, y]) {
  return [clamp(left + x - from[0], 0, 1 - width), clamp(top + y - from[1], 0, 1 - height), width, height];
}

app.registerExtension({
  name: "image_prompt.regions",
  init: () => addStyle("regions.css"),
  nodeCreated(node) {
    if (node.comfyClass !== NODE || !node.addDOMWidget) return;
    addCurve(node);
    const editor = new RegionsEditor(node);
    editor.attach(["regions", "width", "height"]);
    followed(node, "onConnectionsChange", () => app.configuringGraph || editor.draw());
    editor.unfold(true);
    editor.draw();
  },
});
