// What is connected to a node, asked of the node itself: pages from 1.58 on keep links elsewhere than in its slots.

export const slotOf = (slots, name) => slots?.findIndex((slot) => slot.name === name) ?? -1;

// slot: number of an input; -1 is connected to nothing.
export const isConnected = (node, slot) => slot >= 0 && Boolean(node.isInputConnected(slot));

// { node, slot } of the output that an input is connected to; undefined where nothing is, or the edge of a subgraph.
export function originOf(node, slot) {
  const link = isConnected(node, slot) ? node.getInputLink(slot) : undefined;
  const origin = link && node.graph?.getNodeById(link.origin_id);
  return origin ? { node: origin, slot: link.origin_slot } : undefined;
}

// [{ node, slot }] of the inputs that an output is connected to.
export function targetsOf(node, slot) {
  const targets = [...new Set(node.getOutputNodes(slot) ?? [])];
  return targets.flatMap((target) =>
    target.inputs.flatMap((_, n) => {
      const origin = originOf(target, n);
      return origin?.node === node && origin.slot === slot ? [{ node: target, slot: n }] : [];
    }),
  );
}
