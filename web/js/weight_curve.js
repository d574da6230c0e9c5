// Weight over sampling on Image Prompt: Apply: the text in weight_curve as a curve, start_at and end_at as a band on it.
import { app } from "../../../scripts/app.js";

const NODE = "ImagePromptApply";
const SVG = "http://www.w3.org/2000/svg";
const LEFT = 26, RIGHT = 8, TOP = 10, BOTTOM = 18; // margins of the drawing, in pixels
const [FOLDED, OPEN] = [22, 190]; // heights, in pixels
const NEAR = 9; // how near to a handle a pointer takes it, in the same units
const PRESETS = {
  "same all the time": "",
  "ease in": "0:0, 0.5:1",
  "ease out": "0.5:1, 1:0",
  "early only": "0.3:1, 0.45:0",
  "late only": "0.5:0, 0.7:1",
};

// '0:0.2, 0.3:1' as [[0, 0.2], [0.3, 1]]; null where it is no curve, which the node says when it runs.
export function parse(text) {
  const parts = String(text ?? "").split(/[,;\n]/).map((part) => part.trim()).filter(Boolean);
  const points = parts.map((part) => part.split(":").map(Number));
  const good = points.every(([at, factor, ...more]) => !more.length && at >= 0 && at <= 1 && Math.abs(factor) <= 10);
  return good ? points.sort((a, b) => a[0] - b[0]) : null;
}

export const written = (points) => points.map(([at, factor]) => `${round(at, 3)}:${round(factor, 2)}`).join(", ");
const round = (value, digits) => Number(value.toFixed(digits));
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

class CurveEditor {
  constructor(node) {
    this.node = node;
    this.held = null; // what the pointer holds: { point: number } or { side: "start_at" | "end_at" }
    this.root = document.createElement("div");
    this.root.className = "image-prompt-curve";
    [this.width, this.height] = [300, 110];
    this.root.append(this.header());
    this.svg = element("svg", {}, this.root);
    this.menu = this.presets();
    this.root.append(this.menu);
    this.svg.addEventListener("pointerdown", (event) => this.press(event));
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) this.svg.addEventListener(end, () => (this.held = null));
    this.svg.addEventListener("dblclick", (event) => this.remove(event));
    new ResizeObserver(() => this.resize()).observe(this.svg);
    this.draw();
  }

  resize() {
    const { clientWidth, clientHeight } = this.svg; // of the node's own scale, however far the page is zoomed
    if (clientWidth && clientHeight) [this.width, this.height] = [clientWidth, clientHeight];
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.draw();
  }

  // --- one line until somebody wants it: graphs that were saved without it keep their layout ---

  header() {
    const header = document.createElement("button");
    header.title = "How the weight changes over sampling";
    header.addEventListener("click", () => this.unfold(!this.open));
    return header;
  }

  unfold(open) {
    this.open = open;
    this.root.classList.toggle("open", open);
    this.root.firstChild.textContent = `${open ? "▾" : "▸"} weight over sampling`;
    const [width, height] = this.node.size;
    this.node.setSize?.([width, open ? Math.max(height, this.node.computeSize()[1]) : this.node.computeSize()[1]]);
    this.node.graph?.setDirtyCanvas?.(true, true);
  }

  get lines() {
    return this.open ? OPEN : FOLDED;
  }

  // --- values: those of the node's own widgets ---

  widget(name) {
    return this.node.widgets?.find((widget) => widget.name === name);
  }

  read(name, otherwise) {
    return this.widget(name)?.value ?? otherwise;
  }

  write(name, value) {
    const widget = this.widget(name);
    if (!widget || widget.value === value) return;
    widget.value = value;
    widget.callback?.(value, app.canvas, this.node);
    this.node.graph?.setDirtyCanvas?.(true, true);
    this.draw();
  }

  get points() {
    return parse(this.read("weight_curve", ""));
  }

  // --- pointer ---

  place(event) {
    const box = this.svg.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.width, ((event.clientY - box.top) / box.height) * this.height];
  }

  press(event) {
    if (event.button !== 0) return;
    event.stopPropagation(); // not prevented: the page notices a change, for its undo, by the mouse event that follows
    this.svg.setPointerCapture(event.pointerId);
    const [x, y] = this.place(event);
    const points = this.points ?? [];
    const near = points.findIndex(([at, factor]) => Math.hypot(this.x(at) - x, this.y(factor) - y) < NEAR);
    if (near >= 0) this.held = { point: near };
    else if (y > this.height - BOTTOM) this.held = { side: this.sideAt(x) };
    else this.add(x, y, points);
    this.move(event);
  }

  sideAt(x) {
    const [start, end] = [this.x(this.read("start_at", 0)), this.x(this.read("end_at", 1))];
    return Math.abs(x - start) < Math.abs(x - end) || x < start ? "start_at" : "end_at";
  }

  add(x, y, points) {
    const point = [this.at(x), this.factor(y)];
    const all = [...points.filter(([at]) => round(at, 3) !== round(point[0], 3)), point].sort((a, b) => a[0] - b[0]);
    this.held = { point: all.indexOf(point) };
    this.write("weight_curve", written(all));
  }

  move(event) {
    if (!this.held) return;
    event.stopPropagation();
    const [x, y] = this.place(event);
    if (this.held.side) return this.slide(x);
    const points = this.points ?? [];
    const [before, after] = [points[this.held.point - 1], points[this.held.point + 1]];
    points[this.held.point] = [
      clamp(this.at(x), before ? before[0] + 0.001 : 0, after ? after[0] - 0.001 : 1),
      this.factor(y),
    ];
    this.write("weight_curve", written(points));
  }

  slide(x) {
    const at = round(this.at(x), 3);
    const [start, end] = [this.read("start_at", 0), this.read("end_at", 1)];
    if (this.held.side === "start_at") this.write("start_at", clamp(at, 0, end));
    else this.write("end_at", clamp(at, start, 1));
  }

  remove(event) {
    event.preventDefault();
    event.stopPropagation();
    const [x, y] = this.place(event);
    const points = (this.points ?? []).filter(([at, factor]) => Math.hypot(this.x(at) - x, this.y(factor) - y) >= NEAR);
    this.write("weight_curve", written(points));
  }

  presets() {
    const menu = document.createElement("select");
    menu.title = "Curves to begin with";
    menu.append(new Option("curve …", "", true, true));
    for (const name of Object.keys(PRESETS)) menu.append(new Option(name, name));
    menu.addEventListener("change", () => {
      this.write("weight_curve", PRESETS[menu.value]);
      menu.selectedIndex = 0;
    });
    return menu;
  }

  // --- drawing ---

  get top() {
    const factors = (this.points ?? []).map(([, factor]) => factor);
    return Math.max(1, Math.ceil(Math.max(...factors, 1)));
  }

  get low() {
    const factors = (this.points ?? []).map(([, factor]) => factor);
    return Math.min(0, Math.floor(Math.min(...factors, 0)));
  }

  x = (at) => LEFT + at * (this.width - LEFT - RIGHT);
  y = (factor) => TOP + ((this.top - factor) / (this.top - this.low)) * (this.height - TOP - BOTTOM);
  at = (x) => clamp((x - LEFT) / (this.width - LEFT - RIGHT), 0, 1);
  factor = (y) =>
    clamp(this.top - ((y - TOP) / (this.height - TOP - BOTTOM)) * (this.top - this.low), this.low, this.top);

  draw() {
    const [start, end] = [this.read("start_at", 0), this.read("end_at", 1)];
    const points = this.points;
    this.svg.replaceChildren();
    const floor = this.height - BOTTOM;
    element("rect", { class: "all", x: LEFT, y: TOP, width: this.width - LEFT - RIGHT, height: floor - TOP }, this.svg);
    element("rect", { class: "band", x: this.x(start), y: TOP, width: Math.max(0, this.x(end) - this.x(start)), height: floor - TOP }, this.svg);
    for (const factor of [this.low, 0, 1, this.top]) this.label(factor);
    this.line(points ?? []);
    element("line", { class: "rail", x1: this.x(start), x2: this.x(end), y1: floor + 8, y2: floor + 8 }, this.svg);
    for (const at of [start, end]) element("circle", { class: "side", cx: this.x(at), cy: floor + 8, r: 5 }, this.svg);
    for (const [at, factor] of points ?? []) element("circle", { class: "point", cx: this.x(at), cy: this.y(factor), r: 4.5 }, this.svg);
    if (!points) element("text", { class: "wrong", x: LEFT + 6, y: TOP + 16 }, this.svg).textContent = "not a curve: 0:0.2, 0.3:1";
  }

  label(factor) {
    element("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: this.y(factor), y2: this.y(factor) }, this.svg);
    element("text", { class: "scale", x: LEFT - 4, y: this.y(factor) + 3.5 }, this.svg).textContent = `×${factor}`;
  }

  line(points) {
    const level = points.length ? points : [[0, 1]];
    const whole = [[0, level[0][1]], ...level, [1, level.at(-1)[1]]];
    const path = whole.map(([at, factor], n) => `${n ? "L" : "M"}${this.x(at)} ${this.y(factor)}`).join("");
    element("path", { class: "curve", d: path }, this.svg);
  }
}

function followed(widget, change) {
  const before = widget.callback;
  widget.callback = function (...values) {
    const result = before?.apply(this, values);
    change();
    return result;
  };
}

app.registerExtension({
  name: "image_prompt.weight_curve",
  init() {
    const link = document.createElement("link");
    Object.assign(link, { rel: "stylesheet", href: new URL("weight_curve.css", import.meta.url).href });
    document.head.append(link);
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE || !node.addDOMWidget || !node.widgets?.some((w) => w.name === "weight_curve")) return;
    const editor = new CurveEditor(node);
    const height = () => editor.lines;
    const options = { serialize: false, hideOnZoom: false, getMinHeight: height, getMaxHeight: height };
    const widget = node.addDOMWidget("weight over sampling", "image_prompt_curve", editor.root, options);
    widget.serialize = false;
    for (const name of ["weight_curve", "start_at", "end_at"]) followed(editor.widget(name), () => editor.draw());
    const configured = node.onConfigure;
    node.onConfigure = function (...given) {
      const result = configured?.apply(this, given);
      if (editor.read("weight_curve", "")) editor.unfold(true);
      editor.draw();
      return result;
    };
    editor.unfold(false);
  },
});
