// Layer Weights as bars: one for each block of the connected model, over the node's own numbers.
import { app } from "../../../scripts/app.js";
import { parse, write } from "./blocks_text.js";
import { modelBlocks } from "./layer_model.js";
import { Editor, addStyle, clamp, followed, html, round, svg } from "./editor.js";
import { text } from "./strings.js";

const NODE = "ImagePromptLayerWeights", TEXT = "blocks";
const LEFT = 22, RIGHT = 4, TOP = 16, BOTTOM = 44; // margins of the drawing, in pixels
const OPEN = 220; // height in pixels
const STEP = 0.05, SNAP = 0.04; // of weights; how near to 1 a bar becomes 1
const NAMES = 24; // with more bars than these only some have a name
const RAMPS = {
  even: () => 1,
  none: () => 0,
  rising: (depth) => depth,
  falling: (depth) => 1 - depth,
  middle: (depth) => 1 - Math.abs(2 * depth - 1),
  ends: (depth) => Math.abs(2 * depth - 1),
};
const SETS = { style: ["style"], composition: ["composition"], both: ["style", "composition"] };

class BarsEditor extends Editor {
  constructor(node) {
    super(node, "blocks", [OPEN, OPEN]);
    this.model = null; // { family, blocks, style, composition } as the server says; null until it is known
    [this.width, this.height] = [300, 160];
    this.svg = svg("svg", {}, this.root);
    this.row = html("div", { className: "row" }, this.root);
    this.caption = html("span", { className: "gap" }, this.row);
    const reset = html("button", { textContent: text("blocks.reset"), title: text("blocks.reset.hint") }, this.row);
    reset.addEventListener("click", () => this.fill(RAMPS.even));
    this.menu = this.row.appendChild(html("select", { title: text("blocks.presets") }));
    this.menu.addEventListener("change", () => this.choose(this.menu.value));
    this.svg.addEventListener("pointerdown", (event) => this.press(event));
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) this.svg.addEventListener(end, () => (this.held = null));
    this.svg.addEventListener("pointerleave", () => this.point(-1));
    new ResizeObserver(() => this.resize()).observe(this.svg);
    this.show(null);
  }

  resize() {
    const { clientWidth, clientHeight } = this.svg;
    if (clientWidth && clientHeight) [this.width, this.height] = [clientWidth, clientHeight];
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.draw();
  }

  // The numbers stand where the bars do not.
  unfold(open, how) {
    super.unfold(open, { ...how, hidden: this.own });
  }

  // --- blocks, and the inputs that hold their weights ---

  get own() {
    return (this.node.widgets ?? []).filter(({ name }) => /^(input|output)_\d+$|^middle$/.test(name)).map(({ name }) => name);
  }

  get blocks() {
    return this.model?.blocks ?? this.own.map((name) => name.replace("_", " "));
  }

  // Blocks that have no number of their own, and what the text names, are weighed in the text.
  get named() {
    return parse(this.read(TEXT, ""), this.blocks);
  }

  weight(block) {
    return this.named?.get(block) ?? this.read(block.replace(" ", "_"), 1);
  }

  setWeights(weights) {
    const named = this.named;
    for (const [block, weight] of weights) {
      const input = block.replace(" ", "_");
      if (this.widget(input) && !named?.has(block)) this.write(input, weight);
      else named?.set(block, weight);
    }
    if (named) this.write(TEXT, write(named, this.blocks));
  }

  show(model) {
    this.model = model?.blocks ? model : null;
    this.presets();
    this.draw();
  }

  async ask() {
    const known = await modelBlocks(this.node);
    if (known) this.show(known);
  }

  // --- presets ---

  presets() {
    const sets = Object.keys(SETS).filter((name) => SETS[name].every((part) => Object.keys(this.model?.[part] ?? {}).length));
    this.menu.replaceChildren(new Option(text("blocks.preset"), "", true, true));
    for (const name of [...sets, ...Object.keys(RAMPS)]) this.menu.append(new Option(text(`blocks.${name}`), name));
  }

  choose(name) {
    this.menu.selectedIndex = 0;
    if (RAMPS[name]) return this.fill(RAMPS[name]);
    const set = Object.assign({}, ...SETS[name].map((part) => this.model[part]));
    this.fill((_, block) => set[block] ?? 0);
  }

  // Blocks that the model does not have get 1, as the node wants it.
  fill(weigh) {
    const blocks = this.blocks;
    for (const name of this.own) if (!blocks.includes(name.replace("_", " "))) this.write(name, 1);
    const depth = (n) => n / Math.max(1, blocks.length - 1);
    this.setWeights(blocks.map((block, n) => [block, round(clamp(weigh(depth(n), block), 0, 1), 2)]));
  }

  // --- pointer ---

  place(event) {
    const box = this.svg.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const bar = Math.floor((x * this.width - LEFT) / this.wide);
    const weight = this.top - ((y * this.height - TOP) / (this.floor - TOP)) * (this.top - this.low);
    const near = Math.abs(weight - 1) < SNAP ? 1 : Math.round(weight / STEP) * STEP;
    return [clamp(bar, 0, this.blocks.length - 1), round(clamp(near, this.low, this.top), 2)];
  }

  press(event) {
    if (event.button !== 0) return;
    this.take(event, this.svg);
    this.held = this.place(event);
    this.move(event);
  }

  // All bars from the last place to this one, on the line between.
  move(event) {
    const [bar, weight] = this.place(event);
    if (this.held) {
      event.stopPropagation();
      const [last, before] = this.held;
      const way = Math.abs(bar - last) || 1;
      const at = (n) => (n === way || last === bar ? weight : round(before + ((weight - before) * n) / way, 2));
      const steps = Array.from({ length: Math.abs(bar - last) + 1 }, (_, n) => n);
      this.setWeights(steps.map((n) => [this.blocks[last + Math.sign(bar - last) * n], at(n)]));
      this.held = [bar, weight];
    }
    this.point(bar);
  }

  point(bar) {
    if (this.pointed === bar) return;
    this.pointed = bar;
    this.draw();
  }

  // --- drawing ---

  get top() {
    return Math.max(2, Math.ceil(Math.max(...this.blocks.map((block) => this.weight(block)))));
  }

  get low() {
    return Math.min(0, Math.floor(Math.min(...this.blocks.map((block) => this.weight(block)))));
  }

  get floor() {
    return this.height - BOTTOM;
  }

  get wide() {
    return (this.width - LEFT - RIGHT) / this.blocks.length;
  }

  y = (weight) => TOP + ((this.top - weight) / (this.top - this.low)) * (this.floor - TOP);

  draw() {
    const blocks = this.blocks;
    const pointed = blocks[this.pointed];
    const shown = this.model ? text("blocks.shown", { family: this.model.family, count: blocks.length }) : text("blocks.unknown");
    this.caption.textContent = pointed ? text("blocks.value", { block: pointed, weight: this.weight(pointed) }) : shown;
    this.svg.replaceChildren();
    svg("rect", { class: "all", x: LEFT, y: TOP, width: this.width - LEFT - RIGHT, height: this.floor - TOP }, this.svg);
    for (const weight of new Set([this.low, 0, 1, this.top])) this.level(weight);
    for (const [n, block] of blocks.entries()) this.bar(n, block);
  }

  level(weight) {
    const at = this.y(weight);
    svg("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: at, y2: at }, this.svg);
    svg("text", { class: "scale", x: LEFT - 3, y: at + 3.5 }, this.svg).textContent = weight;
  }

  bar(n, block) {
    const [stage] = block.split(" ");
    const [from, to] = [this.y(0), this.y(this.weight(block))];
    const x = LEFT + n * this.wide;
    const chosen = n === this.pointed ? " pointed" : "";
    const size = { width: Math.max(1, this.wide - 1), height: Math.max(1, Math.abs(to - from)) };
    svg("rect", { class: `bar ${stage}${chosen}`, x: x + 0.5, y: Math.min(from, to), ...size }, this.svg);
    if (this.blocks.length > NAMES && Number(block.split(" ")[1]) % 5) return;
    const [cx, cy] = [x + this.wide / 2 + 3, this.floor + 4];
    svg("text", { class: "name", transform: `translate(${cx} ${cy}) rotate(-90)` }, this.svg).textContent = block;
  }
}

app.registerExtension({
  name: "image_prompt.layer_weights",
  init: () => addStyle("layer_weights.css"),
  nodeCreated(node) {
    if (node.comfyClass !== NODE || !node.addDOMWidget) return;
    const editor = new BarsEditor(node);
    const ask = () => setTimeout(() => editor.ask(), 0); // when the links of an opened graph are there
    editor.attach([...editor.own, TEXT]);
    followed(node, "onConfigure", ask);
    followed(node, "onConnectionsChange", ask);
    followed(node, "onExecuted", (done) => editor.show(done?.blocks?.[0]));
    editor.unfold(false);
  },
});
