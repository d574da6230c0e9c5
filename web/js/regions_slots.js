// The Regions node has as many inputs and mask outputs as it has regions; what is connected stays.

const PROMPT_TYPE = "IMAGE_PROMPT,IMAGE";
const INPUT = "image_prompt_", OUTPUT = "mask_";
const linkOf = (node, id) => node.graph?.getLink?.(id) ?? node.graph?.links?.[id];
const at = (slots, name) => slots?.findIndex((slot) => slot.name === name) ?? -1;

export function fitSlots(node, regions, most) {
  for (let n = most; n >= 1; n--) {
    const input = at(node.inputs, INPUT + n);
    if (n > regions && input >= 0 && node.inputs[input].link == null) node.removeInput(input);
    const output = at(node.outputs, OUTPUT + n);
    if (n > regions && output >= 0 && output === node.outputs.length - 1 && !node.outputs[output].links?.length)
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
  const link = from < 0 ? undefined : linkOf(node, node.inputs[from].link);
  const origin = link && node.graph.getNodeById(link.origin_id);
  if (!origin || to < 0) return;
  node.disconnectInput(from);
  origin.connect(link.origin_slot, node, to);
}

function moveOutput(node, from, to) {
  if (from < 0 || to < 0) return;
  for (const link of [...(node.outputs[from].links ?? [])].map((id) => linkOf(node, id))) {
    const target = link && node.graph.getNodeById(link.target_id);
    if (!target) continue;
    target.disconnectInput(link.target_slot);
    node.connect(to, target, link.target_slot);
  }
}
