// The Regions node has as many inputs and mask outputs as it has regions; what is connected stays.
import { isConnected, originOf, slotOf as at, targetsOf } from "./links.js";

const PROMPT_TYPE = "IMAGE_PROMPT,IMAGE";
const INPUT = "image_prompt_", OUTPUT = "mask_";

export function fitSlots(node, regions, most) {
  for (let n = most; n >= 1; n--) {
    const input = at(node.inputs, INPUT + n);
    if (n > regions && input >= 0 && !isConnected(node, input)) node.removeInput(input);
    const output = at(node.outputs, OUTPUT + n);
    if (n > regions && output >= 0 && output === node.outputs.length - 1 && !node.isOutputConnected(output))
      node.removeOutput(output);
  }
  for (let n = 1; n <= regions; n++) {
    if (at(node.inputs, INPUT + n) < 0) node.addInput(INPUT + n, PROMPT_TYPE, { shape: 7 }); // 7: optional
    if (at(node.outputs, OUTPUT + n) < 0) node.addOutput(OUTPUT + n, "MASK");
  }
}

// What was connected to later regions moves up to the place of the one that is gone.
export function closeGap(node, gone, regions) {
  const input = at(node.inputs, INPUT + gone);
  if (input >= 0) node.disconnectInput(input);
  const output = at(node.outputs, OUTPUT + gone);
  if (output >= 0) node.disconnectOutput(output);
  for (let n = gone; n < regions; n++) {
    moveInput(node, at(node.inputs, INPUT + (n + 1)), at(node.inputs, INPUT + n));
    moveOutput(node, at(node.outputs, OUTPUT + (n + 1)), at(node.outputs, OUTPUT + n));
  }
}

function moveInput(node, from, to) {
  const origin = originOf(node, from);
  if (!origin || to < 0) return;
  node.disconnectInput(from);
  origin.node.connect(origin.slot, node, to);
}

function moveOutput(node, from, to) {
  if (from < 0 || to < 0) return;
  for (const target of targetsOf(node, from)) {
    target.node.disconnectInput(target.slot);
    node.connect(to, target.node, target.slot);
  }
}
