// Weight over sampling: weight, start_at and end_at on rails; the text in weight_curve as a curve, with them as a band on it.
import { app } from "../../../scripts/app.js";
import { Editor, addStyle, clamp, html, round, svg } from "./editor.js";
import { Rail } from "./rail.js";
import { text } from "./strings.js";

const NODE = "ImagePromptApply";
const LEFT = 26, RIGHT = 8, TOP = 10, BOTTOM = 18; // margins of the drawing, in pixels
const OPEN = 174; // height in pixels
const NEAR = 9; // how near to a handle a pointer takes it, in the same units
const PRESETS = {
  even: "",
  ease_in: "0:0, 0.5:1",
  ease_out: "0.5:1, 1:0",
  early: "0.3:1, 0.45:0",
  late: "0.5:0, 0.7:1",
};

// '0:0.2, 0.3:1' as [[0, 0.2], [0.3, 1]]; null where it is no curve, which the node says when it runs.
export function parse(written) {
  const parts = String(written ?? "").split(/[,;\n]/).map((part) => part.trim()).filter(Boolean);
  const points = parts.map((part) => part.split(":").map(Number));
  const good = points.every(([at, factor, ...more]) => !more.length && at >= 0 && at <= 1 && Math.abs(factor) <= 10);
  return good ? points.sort((a, b) => a[0] - b[0]) : null;
}

export const written = (points) => points.map(([at, factor]) => `${round(at, 3)}:${round(factor, 2)}`).join(", ");

class CurveEditor extends Editor {
  constructor(node) {
    super(node, "curve", [OPEN, OPEN]);
    this.held = null; // what the pointer holds: { point: number } or { side: "start_at" | "end_at" }
    this.rails = [new Rail(this, "weight", ["weight"], 2, 0.05), new Rail(this, "range", ["start_at", "end_at"], 1, 0.01)];
    [this.width, this.height] = [300, 110];
    this.svg = svg("svg", {}, this.root);
    this.root.append(this.presets());
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
    this.take(event, this.svg);
    const [x, y] = this.place(event);
    const points = this.points ?? [];
    const near = this.pointAt(x, y);
    if (near >= 0) this.held = { point: near };
    else if (y > this.height - BOTTOM) this.held = { side: this.sideAt(x) };
    else this.add(x, y, points);
    this.move(event);
  }

  pointAt(x, y) {
    return (this.points ?? []).findIndex(([at, factor]) => Math.hypot(this.x(at) - x, this.y(factor) - y) < NEAR);
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
    const [x, y] = this.place(event);
    if (!this.held) return this.hint(x, y);
    event.stopPropagation();
    if (this.held.side) return this.slide(x);
    const points = this.points ?? [];
    const [before, after] = [points[this.held.point - 1], points[this.held.point + 1]];
    points[this.held.point] = [
      clamp(this.at(x), before ? before[0] + 0.001 : 0, after ? after[0] - 0.001 : 1),
      this.factor(y),
    ];
    this.write("weight_curve", written(points));
  }

  hint(x, y) {
    this.svg.style.cursor = this.pointAt(x, y) >= 0 ? "grab" : y > this.height - BOTTOM ? "ew-resize" : "";
  }

  slide(x) {
    const at = round(this.at(x), 3);
    const [start, end] = [this.read("start_at", 0), this.read("end_at", 1)];
    if (this.held.side === "start_at") this.write("start_at", clamp(at, 0, end));
    else this.write("end_at", clamp(at, start, 1));
  }

  remove(event) {
    event.preventDefault();
    const [x, y] = this.place(event);
    const points = (this.points ?? []).filter(([at, factor]) => Math.hypot(this.x(at) - x, this.y(factor) - y) >= NEAR);
    this.write("weight_curve", written(points));
  }

  presets() {
    const menu = html("select", { title: text("curve.presets") });
    menu.append(new Option(text("curve.preset"), "", true, true));
    for (const name of Object.keys(PRESETS)) menu.append(new Option(text(`curve.${name}`), name));
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
    for (const rail of this.rails) rail.draw();
    const [start, end] = [this.read("start_at", 0), this.read("end_at", 1)];
    const points = this.points;
    this.svg.replaceChildren();
    const floor = this.height - BOTTOM;
    svg("rect", { class: "all", x: LEFT, y: TOP, width: this.width - LEFT - RIGHT, height: floor - TOP }, this.svg);
    svg("rect", { class: "band", x: this.x(start), y: TOP, width: Math.max(0, this.x(end) - this.x(start)), height: floor - TOP }, this.svg);
    for (const factor of [this.low, 0, 1, this.top]) this.label(factor);
    this.line(points ?? []);
    svg("line", { class: "foot", x1: this.x(start), x2: this.x(end), y1: floor + 8, y2: floor + 8 }, this.svg);
    for (const at of [start, end]) svg("circle", { class: "side", cx: this.x(at), cy: floor + 8, r: 5 }, this.svg);
    for (const [at, factor] of points ?? []) svg("circle", { class: "point", cx: this.x(at), cy: this.y(factor), r: 4.5 }, this.svg);
    if (!points) svg("text", { class: "wrong", x: LEFT + 6, y: TOP + 16 }, this.svg).textContent = text("curve.wrong");
  }

  label(factor) {
    svg("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: this.y(factor), y2: this.y(factor) }, this.svg);
    svg("text", { class: "scale", x: LEFT - 4, y: this.y(factor) + 3.5 }, this.svg).textContent = `×${factor}`;
  }

  line(points) {
    const level = points.length ? points : [[0, 1]];
    const whole = [[0, level[0][1]], ...level, [1, level.at(-1)[1]]];
    const path = whole.map(([at, factor], n) => `${n ? "L" : "M"}${this.x(at)} ${this.y(factor)}`).join("");
    svg("path", { class: "curve", d: path }, this.svg);
  }
}

export function addCurve(node) {
  if (!node.addDOMWidget || !node.widgets?.some(({ name }) => name === "weight_curve")) return;
  const editor = new CurveEditor(node);
  editor.attach(["weight_curve", "weight", "start_at", "end_at"], () => editor.read("weight_curve", ""));
  editor.unfold(false);
}

app.registerExtension({
  name: "image_prompt.weight_curve",
  init: () => addStyle("weight_curve.css"),
  nodeCreated: (node) => node.comfyClass === NODE && addCurve(node),
});
