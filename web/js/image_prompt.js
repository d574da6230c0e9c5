// Settings of the compatibility nodes, and files of older versions as today's nodes read them.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { hasInput, inputsOf, isOurType, registered, retype } from "./node_types.js";
import { renewForm } from "./older_forms.js";
import { text } from "./strings.js";

const FIRST_ENCODER = { old: "IPAdapterEncoder", here: "ImagePromptLegacyEncoder", own: "image_1" };
const FIRST_APPLY = { old: "IPAdapter", here: "ImagePromptLegacyApply", own: "model_name" };
// What values that are no longer in a menu are called now; the server reads the same file.
const OLD_VALUES = await fetch(new URL("old_values.json", import.meta.url)).then((file) => file.json(), () => ({}));
let meant = {}; // by input: the menu's name of a file by the name in the opened graph, as the server finds it

// Whether our node stands for the older one: it is there, and the node that has the old id today is not that one.
const takes = ({ old, here, own }) => registered(here) !== undefined && !(own in inputsOf(registered(old)));

// Since March 2024 this id means another node. The first one began with a checkbox; its later namesake is one number.
function isFirstEncoder(node) {
  if (node.type !== FIRST_ENCODER.old) return false;
  return typeof node.widgets_values?.[0] === "boolean" || hasInput(node, "image_1");
}

// The node of 2023 that had this id first chose its file itself: [weight, file, precision].
function isFirstApply(node) {
  if (node.type !== FIRST_APPLY.old) return false;
  const pack = `${node.properties?.cnr_id ?? ""} ${node.properties?.aux_id ?? ""}`.toLowerCase();
  if (/ipadapter[-_]plus/.test(pack) || hasInput(node, "ipadapter")) return false;
  if (hasInput(node, "clip_vision", "clip_vision_output")) return true;
  if ((node.outputs ?? []).some((output) => output.type === "CLIP_VISION_OUTPUT")) return true;
  const values = Array.isArray(node.widgets_values) ? node.widgets_values : [];
  return typeof values[1] === "string" || (values.length === 1 && hasInput(node, "image"));
}

function retypeFirstNodes(node) {
  if (takes(FIRST_ENCODER) && isFirstEncoder(node)) {
    retype(node, FIRST_ENCODER.here);
    for (const input of node.inputs ?? []) if (input.name === "image") input.name = "image_1"; // until October 2023
  } else if (takes(FIRST_APPLY) && isFirstApply(node)) {
    retype(node, FIRST_APPLY.here);
    const [weight = 1, file = "", precision = "fp16"] = node.widgets_values ?? [];
    node.widgets_values = [weight, file, precision];
  }
}

const choices = (widget) => (Array.isArray(widget?.options?.values) ? widget.options.values : []);
const isStale = (widget) => typeof widget.value === "string" && !choices(widget).includes(widget.value);

async function askForNames(nodes) {
  const ours = nodes.filter((node) => isOurType(registered(node.type)));
  const names = ours.flatMap((node) => Object.values(node.widgets_values ?? {})).filter((value) => typeof value === "string");
  if (!names.length) return {};
  const body = JSON.stringify([...new Set(names)]);
  const headers = { "Content-Type": "application/json" };
  const answer = await api.fetchApi("/image_prompt/names", { method: "POST", body, headers });
  return answer.ok ? answer.json() : {};
}

function renew(node) {
  const widgets = Object.fromEntries((node.widgets ?? []).map((widget) => [widget.name, widget]));
  for (const [name, renamed] of Object.entries(OLD_VALUES)) {
    if (!widgets[name] || !isStale(widgets[name])) continue;
    for (const [other, value] of Object.entries(renamed[widgets[name].value] ?? {}))
      if (choices(widgets[other]).includes(value)) widgets[other].value = value;
  }
  for (const [name, files] of Object.entries(meant)) {
    const widget = widgets[name];
    const file = widget && isStale(widget) ? files[widget.value] : undefined;
    if (choices(widget).includes(file)) widget.value = file;
  }
}

// A value of another version in a number's place would show as NaN.
function mendNumbers(node) {
  const declared = inputsOf(node.constructor);
  const wrong = (node.widgets ?? []).filter(
    (widget) => ["INT", "FLOAT"].includes(declared[widget.name]?.[0]) && !Number.isFinite(widget.value),
  );
  for (const widget of wrong) {
    const was = widget.value;
    widget.value = Number.isFinite(parseFloat(was)) ? parseFloat(was) : (declared[widget.name][1]?.default ?? 0);
    report(text("number.mended", { node: node.title, input: widget.name, was, now: widget.value }));
  }
}

function report(detail) {
  console.warn(`Image Prompt: ${detail}`);
  app.extensionManager?.toast?.add({ severity: "warn", summary: text("pack"), detail, life: 20000 });
}

app.registerExtension({
  name: "ImagePrompt.Compatibility",
  settings: [
    {
      id: "ImagePrompt.ExactLegacyResults",
      category: ["Image Prompt", "Old workflows", "Exact legacy results"],
      name: "Exact legacy results",
      tooltip:
        "Compatibility (IPAdapter) nodes repeat the results of the older pack to the last bit that matters, with its " +
        "known errors. Off: the errors are corrected.",
      type: "boolean",
      defaultValue: false,
    },
    {
      id: "ImagePrompt.CompatibilityNodes",
      category: ["Image Prompt", "Old workflows", "Compatibility nodes"],
      name: "Compatibility nodes",
      tooltip: "Serve the IPAdapter node ids that no other installed pack has. Needs a restart of ComfyUI.",
      type: "boolean",
      defaultValue: true,
    },
  ],
  // Before the page looks for missing nodes and files, and before widgets take their values by position.
  async beforeConfigureGraph(graph) {
    const parts = [graph, ...(graph.definitions?.subgraphs ?? [])];
    const nodes = parts.flatMap((part) => part.nodes ?? []);
    for (const node of nodes) {
      retypeFirstNodes(node);
      renewForm(node);
    }
    meant = await askForNames(nodes).catch(() => ({}));
  },
  loadedGraphNode(node) {
    if (!isOurType(node.constructor)) return;
    renew(node);
    mendNumbers(node);
  },
});
