// Settings of the compatibility nodes, and files of older versions as today's nodes read them.
import { app } from "../../../scripts/app.js";

const FIRST_ENCODER = "IPAdapterEncoder";
const FIRST_ENCODER_HERE = "ImagePromptLegacyEncoder";
// What values that are no longer in a menu are called now; the server reads the same file.
const OLD_VALUES = await fetch(new URL("old_values.json", import.meta.url)).then((file) => file.json(), () => ({}));

const registered = (type) => globalThis.LiteGraph?.registered_node_types?.[type];
const packOf = (nodeType) => nodeType?.nodeData?.python_module;
const isOurs = (node) => packOf(node.constructor) !== undefined && packOf(node.constructor) === packOf(registered("ImagePromptLoader"));

// Since March 2024 this id means another node. The first one began with a checkbox; its later namesake is one number.
function isFirstEncoder(node) {
  if (node.type !== FIRST_ENCODER) return false;
  if (typeof node.widgets_values?.[0] === "boolean") return true;
  return (node.inputs ?? []).some((input) => input.name === "image_1");
}

function retype(node) {
  node.type = FIRST_ENCODER_HERE;
  if (node.properties?.["Node name for S&R"]) node.properties["Node name for S&R"] = FIRST_ENCODER_HERE;
  for (const input of node.inputs ?? []) if (input.name === "image") input.name = "image_1"; // until October 2023
}

const choices = (widget) => (Array.isArray(widget?.options?.values) ? widget.options.values : []);
const isStale = (widget) => typeof widget.value === "string" && !choices(widget).includes(widget.value);
const baseName = (path) => path.split(/[\\/]/).pop().toLowerCase();
const stem = (path) => baseName(path).replace(/\.[^.]*$/, "");

// The server finds files by their base names too; here it keeps the page from reporting them as missing.
function findFile(widget) {
  for (const same of [baseName, stem]) {
    const found = choices(widget).find((file) => same(String(file)) === same(widget.value));
    if (found !== undefined) return found;
  }
  return widget.value;
}

function renew(node) {
  const widgets = Object.fromEntries((node.widgets ?? []).map((widget) => [widget.name, widget]));
  for (const [name, renamed] of Object.entries(OLD_VALUES)) {
    if (!widgets[name] || !isStale(widgets[name])) continue;
    for (const [other, value] of Object.entries(renamed[widgets[name].value] ?? {}))
      if (choices(widgets[other]).includes(value)) widgets[other].value = value;
  }
  const file = widgets.ipadapter_file;
  if (file && isStale(file)) file.value = findFile(file);
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
  // Before the page looks for missing nodes, and before widgets take their values by position.
  beforeConfigureGraph(graph) {
    if (!registered(FIRST_ENCODER_HERE)) return;
    const parts = [graph, ...(graph.definitions?.subgraphs ?? [])];
    for (const node of parts.flatMap((part) => part.nodes ?? [])) if (isFirstEncoder(node)) retype(node);
  },
  loadedGraphNode(node) {
    if (isOurs(node)) renew(node);
  },
});
