// One or two numbers of a node as handles on a rail. The numbers stay typed: what lies beyond the rail is at its end.
import { clamp, html, round, svg } from "./editor.js";
import { text } from "./strings.js";

const MARGIN = 6, RADIUS = 4.5; // in pixels

export class Rail {
  // kind: its class, and the key of its text. names: of the inputs, in order. most: at the rail's right end; 0 at its left.
  constructor(editor, kind, names, most, step) {
    Object.assign(this, { editor, names, most, step, width: 80, height: 16 });
    const around = html("span", { className: "rail-box", title: text(`rail.${kind}`) }, editor.headline);
    this.svg = svg("svg", { class: `rail ${kind}` }, around);
    this.svg.addEventListener("pointerdown", (event) => this.press(event));
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) this.svg.addEventListener(end, () => (this.held = undefined));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  get values() {
    return this.names.map((name, n) => this.editor.read(name, n));
  }

  x = (value) => MARGIN + clamp(value / this.most, 0, 1) * (this.width - 2 * MARGIN);

  value(event) {
    const box = this.svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * this.width;
    const share = clamp((at - MARGIN) / (this.width - 2 * MARGIN), 0, 1);
    return round(Math.round((share * this.most) / this.step) * this.step, 3);
  }

  press(event) {
    if (event.button !== 0) return;
    this.editor.take(event, this.svg);
    const value = this.value(event);
    const values = this.values;
    const away = values.map((each) => Math.abs(each - value));
    // where both lie together, the one that can move there
    this.held = away[1] < away[0] || (away[1] === away[0] && value > values[0]) ? 1 : 0;
    this.move(event);
  }

  move(event) {
    if (this.held === undefined) return;
    event.stopPropagation();
    const [first, second] = this.values;
    const least = this.held ? first : 0;
    const most = this.held || second === undefined ? this.most : second;
    this.editor.write(this.names[this.held], clamp(this.value(event), least, most));
  }

  draw() {
    const { clientWidth, clientHeight } = this.svg;
    if (clientWidth && clientHeight) [this.width, this.height] = [clientWidth, clientHeight];
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.svg.replaceChildren();
    this.svg.classList.toggle("linked", this.names.some((name) => this.editor.isLinked(name)));
    const values = this.values;
    const [from, to] = values.length > 1 ? values : [0, values[0]];
    const middle = this.height / 2;
    svg("line", { class: "track", x1: this.x(0), x2: this.x(this.most), y1: middle, y2: middle }, this.svg);
    svg("line", { class: "part", x1: this.x(from), x2: this.x(to), y1: middle, y2: middle }, this.svg);
    for (const value of values) svg("circle", { class: "side", cx: this.x(value), cy: middle, r: RADIUS }, this.svg);
  }
}
