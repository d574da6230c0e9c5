// Colours of the links of our own types. Nodes 2.0 takes them from the style sheet.
import { app } from "../../../scripts/app.js";
import { addStyle } from "./editor.js";

const COLOURS = { IMAGE_PROMPT: "#f0b64a", IPADAPTER: "#d98a5f", LAYER_WEIGHTS: "#5fb760", FACES: "#e58bb8" };

// The page forgets them when it takes a palette.
function colour() {
  Object.assign(globalThis.LGraphCanvas?.link_type_colors ?? {}, COLOURS);
  Object.assign(app.canvas?.default_connection_color_byType ?? {}, COLOURS);
}

app.registerExtension({
  name: "image_prompt.link_colours",
  init: () => addStyle("link_colours.css"),
  setup: colour,
  afterConfigureGraph: colour,
});
