// Older forms of nodes that have other widgets today. A file gives their values by position, so that their number and kinds
// say which form it is; what a queued prompt gives by name, nodes/compat/old_forms.py reads.
import { hasInput, isOurType, registered, retype } from "./node_types.js";

const SIGLIP = "google/siglip-so400m-patch14-384";
const named = { matches: (node, values) => values.length === 2, change: (node, values) => values.splice(1, 0, SIGLIP) };
const FORMS = {
  IPAdapterFluxLoader: named,
  IPAdapterFluxLoaderAdvanced: named,
  IPAdapterSD3Loader: { matches: (node, values) => values.length === 3, change: (node, values) => values.splice(1, 1) },
  ApplyIPAdapterSD3: {
    matches: (node) => hasInput(node, "image") && !hasInput(node, "image_embed"),
    change: (node) => retype(node, "ImagePromptLegacySD3Apply"),
  },
  // seven widgets in both forms: the weight type came into the place of the end
  AV_IPAdapter: {
    matches: (node, values) => values.length === 7 && typeof values[5] !== "string",
    change: (node) => retype(node, "ImagePromptLegacyArtVenture"),
  },
};

export function renewForm(node) {
  const form = FORMS[node.type];
  if (!form || !isOurType(registered(node.type))) return;
  const values = Array.isArray(node.widgets_values) ? node.widgets_values : [];
  if (form.matches(node, values)) form.change(node, values);
}
