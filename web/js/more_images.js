// Encode Image takes as many images as are connected: the next free input shows when the one before it is taken.
import { app } from "../../../scripts/app.js";
import { isConnected, slotOf } from "./links.js";

const NODE = "ImagePromptEncode", IMAGE = "IMAGE", OPTIONAL = 7; // shape of an input
const LAST = 6; // as in nodes/references.py
const at = (node, name) => slotOf(node.inputs, name);
const taken = (node, n) => isConnected(node, at(node, nameOf(n)));
const nameOf = (n) => (n === 1 ? "image" : `image_${n}`);

// How many inputs are wanted: those up to the last one taken, and one more.
function wanted(node) {
  let last = 0;
  for (let n = 1; n <= LAST; n++) if (taken(node, n)) last = n;
  return Math.min(LAST, last + 1);
}

function fit(node) {
  const shown = wanted(node);
  for (let n = LAST; n > shown; n--) {
    const input = at(node, nameOf(n));
    if (input >= 0) node.removeInput(input);
  }
  for (let n = 2; n <= shown; n++) if (at(node, nameOf(n)) < 0) node.addInput(nameOf(n), IMAGE, { shape: OPTIONAL });
  for (let n = 2; n <= LAST; n++) showWeight(node, n, taken(node, n));
  node.graph?.setDirtyCanvas?.(true, true);
}

function showWeight(node, n, shown) {
  const widget = node.widgets?.find((each) => each.name === `weight_${n}`);
  if (!widget || Boolean(widget.hidden) === !shown) return;
  widget.hidden = widget.options.hidden = !shown;
  const [width, height] = node.size, [, needed] = node.computeSize();
  if (needed > height) node.setSize([width, needed]);
}

app.registerExtension({
  name: "ImagePrompt.MoreImages",
  beforeRegisterNodeDef(type, definition) {
    if (definition.name !== NODE) return;
    const { onConnectionsChange, onConfigure } = type.prototype;
    type.prototype.onConnectionsChange = function (...event) {
      onConnectionsChange?.apply(this, event);
      if (!app.configuringGraph) queueMicrotask(() => this.graph && fit(this));
    };
    type.prototype.onConfigure = function (...saved) {
      onConfigure?.apply(this, saved);
      queueMicrotask(() => this.graph && fit(this));
    };
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const [width] = node.size;
    fit(node);
    node.setSize?.([width, node.computeSize()[1]]);
  },
});
