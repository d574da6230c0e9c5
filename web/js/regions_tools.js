// The rows above and below the drawing of regions: which region, which tool, weight and edge of the chosen region.
import { html } from "./editor.js";
import { COLOURS } from "./regions_drawing.js";
import { MOST_REGIONS } from "./regions_text.js";
import { text } from "./strings.js";

export class Toolbar {
  constructor(editor) {
    Object.assign(this, { editor, tool: "box" });
    this.chips = html("div", { className: "row chips" });
    this.row = html("div", { className: "row" });
    this.tools = Object.fromEntries(["box", "brush", "eraser"].map((name) => [name, this.button(this.row, name, () => this.pick(name))]));
    this.size = this.input("size", { type: "range", min: 0.02, max: 0.6, step: 0.01, value: 0.15 });
    this.button(this.row, "clear", () => editor.change((_, region) => region && (region.shapes = [])));
    html("span", { className: "gap" }, this.row);
    this.soft = this.input("soft", { type: "range", min: 0, max: 0.5, step: 0.01 });
    this.weight = this.input("weight", { type: "number", min: -1, max: 5, step: 0.05 });
    this.soft.addEventListener("input", () => this.set("soft"));
    this.weight.addEventListener("change", () => this.set("weight"));
    this.warning = html("span", { className: "wrong" }, this.row);
    this.pick("box");
  }

  get brush() {
    return Number(this.size.value);
  }

  button(row, name, press) {
    const made = html("button", { textContent: text(`regions.${name}`), title: text(`regions.${name}.hint`) }, row);
    made.addEventListener("click", press);
    return made;
  }

  input(name, attributes) {
    const label = html("label", { textContent: text(`regions.${name}`), title: text(`regions.${name}.hint`) }, this.row);
    const made = html("input", attributes, label);
    made.addEventListener("pointerdown", (event) => event.stopPropagation()); // or the node is dragged
    return made;
  }

  pick(tool) {
    this.tool = tool;
    for (const [name, button] of Object.entries(this.tools)) button.classList.toggle("chosen", name === tool);
  }

  set(name) {
    const value = Number(this[name].value);
    if (Number.isFinite(value)) this.editor.change((_, region) => region && (region[name] = value));
  }

  warn(sentence) {
    this.warning.textContent = sentence;
  }

  // As the regions are: null where the text is none.
  show(regions) {
    const { editor } = this;
    this.warn("");
    this.chips.replaceChildren();
    for (const n of (regions ?? []).keys()) {
      const chip = html("button", { textContent: n + 1, title: text("regions.choose", { n: n + 1 }) }, this.chips);
      chip.style.background = COLOURS[n];
      chip.classList.toggle("chosen", n === editor.chosen);
      chip.addEventListener("click", () => editor.choose(n));
    }
    this.symbol("+", "add", () => editor.add(), regions && regions.length < MOST_REGIONS);
    this.symbol("−", "remove", () => editor.removeRegion(), regions?.length);
    const region = regions?.[editor.chosen];
    for (const name of ["soft", "weight"]) {
      this[name].disabled = !region;
      if (region && document.activeElement !== this[name]) this[name].value = region[name];
    }
  }

  symbol(sign, name, press, usable) {
    const made = html("button", { textContent: sign, title: text(`regions.${name}`), disabled: !usable }, this.chips);
    made.addEventListener("click", press);
  }
}
