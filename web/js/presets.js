// Image Prompt: its presets as pictures to click, over the node's own menu, and its weight on a rail.
import { app } from "../../../scripts/app.js";
import { Editor, addStyle, html } from "./editor.js";
import { Rail } from "./rail.js";
import { text } from "./strings.js";

const NODE = "ImagePrompt", MENU = "preset";
const PICTURED = ["all", "style", "composition", "face"];
const OPEN = 94; // height in pixels

class PresetsEditor extends Editor {
  constructor(node) {
    super(node, "presets", [OPEN, OPEN]);
    this.rail = new Rail(this, "weight", ["weight"], 2, 0.05);
    const choices = html("div", { className: "choices" }, this.root);
    this.buttons = PICTURED.map((preset) => this.button(preset, choices));
    this.draw();
  }

  button(preset, choices) {
    const button = html("button", { value: preset, title: text(`presets.${preset}`) }, choices);
    const src = new URL(`../pictures/preset_${preset}.svg`, import.meta.url).href;
    html("img", { src, alt: "", draggable: false }, button);
    html("span", { textContent: preset }, button); // as it stands in the menu
    button.addEventListener("click", () => this.write(MENU, preset));
    return button;
  }

  draw() {
    this.rail.draw();
    for (const button of this.buttons) {
      button.disabled = this.isLinked(MENU);
      button.setAttribute("aria-pressed", this.read(MENU) === button.value);
    }
  }
}

app.registerExtension({
  name: "image_prompt.presets",
  init: () => addStyle("presets.css"),
  nodeCreated(node) {
    if (node.comfyClass !== NODE || !node.addDOMWidget) return;
    const editor = new PresetsEditor(node);
    // an opened graph that says nothing of it was laid out without the pictures
    editor.attach([MENU, "weight"], () => false);
    editor.unfold(true);
    editor.saveFolding();
  },
});
