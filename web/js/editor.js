// What all drawings on our nodes share: they edit the node's own widgets, and fold to one line.
import { app } from "../../../scripts/app.js";
import { isConnected } from "./links.js";
import { text } from "./strings.js";

const SVG = "http://www.w3.org/2000/svg";
export const FOLDED = 22; // height in pixels
const MARGIN = 2; // around the drawing, in pixels

export const round = (value, digits) => Number(value.toFixed(digits));
export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export function svg(name, attributes = {}, parent = undefined) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

export function html(name, attributes = {}, parent = undefined) {
  const made = Object.assign(document.createElement(name), attributes);
  parent?.append(made);
  return made;
}

export function addStyle(file) {
  html("link", { rel: "stylesheet", href: new URL(file, import.meta.url).href }, document.head);
}

addStyle("editor.css");

export class Editor {
  // kind: its class in the style sheet, and the first part of its texts' keys. heights: open, in pixels [least, most].
  constructor(node, kind, heights) {
    Object.assign(this, { node, kind, heights, open: false });
    this.root = html("div", { className: `image-prompt-editor image-prompt-${kind}` });
    this.headline = html("div", { className: "line" }, this.root); // what is there when it is folded, too
    this.header = html("button", { title: text(`${kind}.hint`) }, this.headline);
    this.header.addEventListener("click", () => {
      this.node.properties[this.name] = !this.open;
      this.unfold(!this.open);
    });
    for (const event of ["keydown", "keyup"]) // typing in here is not for the page's shortcuts
      this.root.addEventListener(event, (pressed) => pressed.target.matches("input") && pressed.stopPropagation());
    // each is a step of the page's undo, which looks at what has changed when the mouse is released: that is before these
    for (const event of ["click", "dblclick", "change"])
      this.root.addEventListener(event, () => {
        app.canvas.emitBeforeChange?.();
        app.canvas.emitAfterChange?.();
      });
    this.root.addEventListener("dblclick", (event) => event.stopPropagation()); // nor for the page's search
  }

  get name() {
    return `image_prompt_${this.kind}`;
  }

  // Folded it is one line: graphs that were saved without it keep their layout. hidden: what is shown while it is folded
  // only. sized: whether the node has the size of that state already.
  unfold(open, { hidden = [], sized = false } = {}) {
    const before = this.node.computeSize()[1];
    this.open = open;
    hide(this.node, hidden.map((name) => this.widget(name)), open);
    this.root.classList.toggle("open", open);
    this.root.style.minHeight = open ? `${this.heights[0] - 2 * MARGIN}px` : ""; // Nodes 2.0 gives texts the room first
    this.header.textContent = `${open ? "▾" : "▸"} ${text(`${this.kind}.${open ? "title" : "folded"}`)}`;
    const needed = this.node.computeSize()[1];
    const [width, height] = this.node.size;
    // where the page shows rows that are hidden, the node is higher than computed: it folds to what it was
    const other = open || this.foldedHeight === undefined ? height + needed - before : this.foldedHeight;
    if (open && !sized) this.foldedHeight = height;
    this.node.setSize?.([width, Math.max(needed, sized ? height : other)]);
    this.node.graph?.setDirtyCanvas?.(true, true);
  }

  widget(name) {
    return this.node.widgets?.find((widget) => widget.name === name);
  }

  read(name, otherwise) {
    return this.widget(name)?.value ?? otherwise;
  }

  // What comes by a link is not the widget's to say.
  isLinked(name) {
    return Boolean(this.node.inputs?.some(({ widget }, n) => widget?.name === name && isConnected(this.node, n)));
  }

  write(name, value) {
    const widget = this.widget(name);
    if (!widget || widget.value === value || this.isLinked(name)) return;
    widget.value = value;
    widget.callback?.(value, app.canvas, this.node);
    this.node.graph?.setDirtyCanvas?.(true, true);
    this.draw();
  }

  // For pointers: the page notices what they have changed when they are released, so nothing is prevented.
  take(event, target) {
    event.stopPropagation();
    target.setPointerCapture(event.pointerId);
  }

  // As a widget of the node, which draws anew when one of these inputs changes.
  // opens: whether an opened graph that says nothing of it shows it unfolded.
  attach(inputs, opens = () => this.open) {
    const height = (most) => () => (this.open ? this.heights[most] : FOLDED);
    const options = { serialize: false, hideOnZoom: false, margin: MARGIN, getMinHeight: height(0), getMaxHeight: height(1) };
    const widget = this.node.addDOMWidget(this.name, this.name, this.root, options);
    widget.serialize = false;
    for (const name of inputs) followed(this.widget(name), "callback", () => this.draw());
    followed(this.node, "onConfigure", () => {
      this.unfold(this.node.properties?.[this.name] ?? Boolean(opens()), { sized: true });
      this.draw();
    });
    followed(this.node, "onConnectionsChange", () => this.draw());
  }

  // For drawings that a new node shows unfolded: so that what a file says nothing of is what was saved without them.
  saveFolding() {
    followed(this.node, "onSerialize", (saved) => Object.assign((saved.properties ??= {}), { [this.name]: this.open }));
  }
}

// To 1.27 the rows must have no height. Nodes 2.0 of 1.49 keeps options of its own of each widget, which a pack cannot reach:
// there the rows stay.
function hide(node, widgets, hidden) {
  const height = (all) => {
    for (const widget of widgets) widget.hidden = all;
    return node.computeSize()[1];
  };
  for (const widget of widgets) delete widget.computeSize;
  if (height(false) !== height(hidden) || !hidden) return;
  for (const widget of widgets) widget.computeSize = () => [0, -4]; // no row, and not the space between rows
}

// Call `change` after what `owner` does by this name.
export function followed(owner, name, change) {
  const before = owner?.[name];
  if (!owner) return;
  owner[name] = function (...given) {
    const result = before?.apply(this, given);
    change(...given);
    return result;
  };
}
