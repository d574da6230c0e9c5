// The Xlabs Sampler is a sampler of its own, which this pack does not serve: a button on the missing node replaces it, and
// XLabs' nodes that only work with it, by nodes of ComfyUI. The mapping is written into a note beside them.
import { app } from "../../../scripts/app.js";
import { originOf, slotOf, targetsOf } from "./links.js";
import { registered } from "./node_types.js";

const SAMPLER = "XlabsSampler";
const [CONTROL, CONTROL_LOADER, LORA] = [/^Apply(Advanced)?FluxControlNet$/, "LoadFluxControlNet", "FluxLoraLoader"];
const HAS_GUIDANCE = /guidance|CLIPTextEncodeFlux/i;
const GAP = 40; // between nodes, in the graph's pixels
const LAST = 10000; // end_at_step: to the very end

// --- what the sampler's values mean ------------------------------------------------------------------------------------

// Of the widgets of all its versions, which had 5, 6 or 7 of them: [seed, after it, steps, from which step on cfg, ...].
export function settings(values) {
  const [seed = 0, after = "fixed", steps = 20, cfgFrom = 20, cfg = 3, strength = 0, denoise = 1] = values ?? [];
  return { seed, after, steps, cfgFrom, cfg, strength, denoise };
}

// Parts of the steps with one cfg each, [{ start, end, cfg }]: XLabs begins without a negative. fresh: no picture came.
export function phases({ steps, cfgFrom, cfg, strength, denoise }, fresh) {
  const start = fresh ? 0 : Math.min(Math.trunc((1 - strength) * (steps + 1)), steps);
  const end = denoise <= 0.99 ? Math.max(Math.trunc((steps + 1) * denoise) - 1, 0) : LAST;
  const turn = Math.max(cfgFrom, start);
  const parts = [
    { start, end: Math.min(turn, end), cfg: 1 },
    { start: turn, end, cfg },
  ];
  const done = Math.min(end, steps);
  return turn <= start ? [parts[1]] : turn >= done ? [{ ...parts[0], end }] : parts;
}

// --- reading the graph -------------------------------------------------------------------------------------------------

const indexOf = (node, name) => slotOf(node.inputs, name);

// What is connected to an input: { node, slot }, through reroutes of nodes; undefined where nothing is.
const source = (node, name) => originOf(node, indexOf(node, name));

// Every node before this input, nearest first.
function* upstream(node, name, seen = new Set()) {
  const from = source(node, name)?.node;
  if (!from || seen.has(from)) return;
  seen.add(from);
  yield from;
  for (const input of from.inputs ?? []) yield* upstream(from, input.name, seen);
}

const isPicture = (node) => node.inputs?.some((input) => input.type === "VAE") || /encode/i.test(node.type);

// --- building ------------------------------------------------------------------------------------------------------------

class Replacement {
  constructor(old) {
    Object.assign(this, { old, graph: old.graph, said: [], made: [], values: settings(old.widgets_values) });
    const bottoms = old.graph.nodes.map((node) => node.pos[1] + node.size[1]);
    [this.x, this.y] = [old.pos[0], Math.max(...bottoms) + 2 * GAP]; // a row of their own, where nothing is
  }

  add(type, values = {}) {
    const node = globalThis.LiteGraph.createNode(type);
    node.pos = [this.x, this.y];
    this.graph.add(node);
    this.x += node.size[0] + GAP;
    for (const [name, value] of Object.entries(values)) {
      const widget = node.widgets?.find((each) => each.name === name);
      if (widget) widget.value = value;
    }
    this.made.push(node);
    return node;
  }

  // from: { node, slot } or nothing
  join(from, node, name) {
    if (!from) return;
    if (indexOf(node, name) < 0) node.convertWidgetToInput?.(node.widgets?.find((widget) => widget.name === name));
    const index = indexOf(node, name);
    if (index >= 0) from.node.connect(from.slot, node, index);
  }

  // Of the sampler's own inputs: links that stood in for a widget go on doing so.
  link(name, node, input) {
    this.join(source(this.old, name), node, input);
  }

  model() {
    const given = source(this.old, "model");
    const [width, height] = ["width", "height"].map((name) => this.latentSize(name));
    if (!given || !width || !height || !registered("ModelSamplingFlux")) {
      this.said.push("the shift of the noise is the model's own: the picture's size is not known here");
      return given;
    }
    const shifted = this.add("ModelSamplingFlux", { max_shift: 1.15, base_shift: 0.5, width, height });
    this.join(given, shifted, "model");
    this.said.push("the shift of the noise by the picture's size: ModelSamplingFlux");
    return { node: shifted, slot: 0 };
  }

  latentSize(name) {
    const empty = source(this.old, "latent_image")?.node;
    return this.fresh ? empty?.widgets?.find((widget) => widget.name === name)?.value : undefined;
  }

  get fresh() {
    const before = [...upstream(this.old, "latent_image")];
    return !(before[0] && isPicture(before[0])) && !(this.values.strength > 0);
  }

  guided(name, otherwise) {
    const given = source(this.old, name) ?? otherwise;
    const before = [...upstream(this.old, name)];
    if (!given || before.some((node) => HAS_GUIDANCE.test(node.type) || !registered(node.type))) return given;
    const guidance = this.add("FluxGuidance", { guidance: 1.0 });
    this.join(given, guidance, "conditioning");
    this.said.push(`${name} named no guidance, which is 1 there and would be 3.5 here: FluxGuidance`);
    return { node: guidance, slot: 0 };
  }

  conditionings() {
    const positive = this.guided("conditioning");
    const pair = { positive, negative: this.guided("neg_conditioning", positive) };
    return this.controls().reduce((at, control) => this.controlled(at, control), pair);
  }

  // XLabs' control nets in front of the sampler, the first one first.
  controls() {
    const found = [];
    for (let at = source(this.old, "controlnet_condition")?.node; at && CONTROL.test(at.type); )
      [found[found.length], at] = [at, source(at, "controlnet_condition")?.node];
    return found.reverse();
  }

  controlled(pair, control) {
    if (registered(control.type)) return pair;
    const [strength = 1, start_percent = 0, end_percent = 1] = control.widgets_values ?? [];
    const loader = source(control, "controlnet")?.node;
    const file = loader?.type === CONTROL_LOADER ? loader.widgets_values?.[1] : "";
    const load = this.add("ControlNetLoader", { control_net_name: file });
    const apply = this.add("ControlNetApplyAdvanced", { strength, start_percent, end_percent });
    for (const [name, from] of Object.entries(pair)) this.join(from, apply, name);
    this.join({ node: load, slot: 0 }, apply, "control_net");
    this.join(source(control, "image"), apply, "image");
    this.said.push(`${control.type}: ControlNetApplyAdvanced; its file belongs in models/controlnet`);
    return { positive: { node: apply, slot: 0 }, negative: { node: apply, slot: 1 } };
  }

  samplers(model, { positive, negative }) {
    const { seed, after, steps, cfg } = this.values;
    const shared = { steps, sampler_name: "euler", scheduler: "simple" };
    let latent = source(this.old, "latent_image");
    if (source(this.old, "image_to_image_strength")) {
      const sampler = this.add("KSampler", { ...shared, seed, control_after_generate: after, cfg });
      this.link("image_to_image_strength", sampler, "denoise");
      this.link("noise_seed", sampler, "seed");
      this.said.push("image_to_image_strength is a link: it is KSampler's denoise, and cfg holds from the first step");
      return [this.wired(sampler, model, positive, negative, latent)];
    }
    const parts = phases(this.values, this.fresh);
    return parts.map((part, n) => {
      const sampler = this.add("KSamplerAdvanced", {
        ...shared,
        add_noise: n ? "disable" : "enable",
        noise_seed: seed,
        control_after_generate: after,
        cfg: part.cfg,
        start_at_step: part.start,
        end_at_step: part.end,
        return_with_leftover_noise: part.end < Math.min(steps, LAST) ? "enable" : "disable",
      });
      this.link("noise_seed", sampler, "noise_seed");
      if (part.cfg !== 1) this.link("true_gs", sampler, "cfg");
      const made = this.wired(sampler, model, positive, negative, latent);
      latent = { node: sampler, slot: 0 };
      return made;
    });
  }

  wired(sampler, model, positive, negative, latent) {
    for (const [name, from] of Object.entries({ model, positive, negative, latent_image: latent })) this.join(from, sampler, name);
    this.link("steps", sampler, "steps");
    return sampler;
  }

  // --- in place of the old ones ---

  run() {
    const targets = targetsOf(this.old, 0);
    const controls = this.controls();
    const samplers = this.samplers(this.model(), this.conditionings());
    for (const { node, slot } of targets) samplers.at(-1).connect(0, node, slot);
    this.loras();
    const loaders = controls.map((control) => source(control, "controlnet")?.node);
    for (const node of [this.old, ...controls.toReversed(), ...new Set(loaders)]) this.removeUnused(node);
    this.note();
  }

  removeUnused(node) {
    const used = node !== this.old && (node?.outputs ?? []).some((_, n) => node.isOutputConnected(n));
    if (node && !registered(node.type) && !used) this.graph.remove(node);
  }

  // ComfyUI reads XLabs' LoRA files itself.
  loras() {
    for (const old of this.graph.nodes.filter((node) => node.type === LORA && !registered(LORA))) {
      const [lora_name, strength_model] = old.widgets_values ?? [];
      const load = this.add("LoraLoaderModelOnly", { lora_name, strength_model });
      load.pos = [...old.pos];
      this.x -= load.size[0] + GAP;
      this.join(source(old, "model"), load, "model");
      for (const { node, slot } of targetsOf(old, 0)) load.connect(0, node, slot);
      this.graph.remove(old);
      this.said.push("FluxLoraLoader: LoraLoaderModelOnly; its file belongs in models/loras");
    }
  }

  note() {
    const { cfgFrom, cfg, steps } = this.values;
    const lines = [
      `euler over the same noise levels, ${steps} steps; the first ${cfgFrom} without a negative (cfg 1), then cfg ${cfg}`,
      "the noise of a seed is ComfyUI's own, so pictures differ from XLabs' of the same seed",
      "of an image prompt the negative side is a black picture, as there",
      ...this.said,
    ];
    const text = `# In place of the Xlabs Sampler\n\n${lines.map((line) => `- ${line}.`).join("\n")}\n`;
    const note = globalThis.LiteGraph.createNode(registered("MarkdownNote") ? "MarkdownNote" : "Note");
    note.pos = [this.old.pos[0] - 420 - GAP, this.y];
    note.size = [420, 280];
    this.graph.add(note);
    if (note.widgets?.[0]) note.widgets[0].value = text;
    app.canvas?.centerOnNode?.(this.made.at(-1));
  }
}

export function replace(node) {
  const { graph } = node;
  graph.beforeChange?.();
  try {
    new Replacement(node).run();
  } finally {
    graph.afterChange?.();
    graph.setDirtyCanvas?.(true, true);
  }
}

// --- the offer -----------------------------------------------------------------------------------------------------------

const LABEL = "Replace by ComfyUI's KSampler";
const isMissing = (node) => node?.type === SAMPLER && !registered(SAMPLER);

app.registerExtension({
  name: "ImagePrompt.XlabsSampler",
  loadedGraphNode(node) {
    if (!isMissing(node) || node.widgets?.some((widget) => widget.name === LABEL)) return;
    const button = node.addWidget("button", LABEL, null, () => replace(node), { serialize: false });
    button.serialize = false;
  },
  getNodeMenuItems(node) {
    return isMissing(node) ? [{ content: LABEL, callback: () => replace(node) }] : [];
  },
});
