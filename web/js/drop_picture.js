// A picture file that is dropped on Image Prompt, or pasted while it is selected, becomes its image: in the Load Image that is
// connected to it, or in a new one on its left.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { isConnected, originOf } from "./links.js";
import { inputsOf } from "./node_types.js";
import { text } from "./strings.js";

const NODE = "ImagePrompt", INPUT = "image", LOADER = "LoadImage";
const SIZE = [280, 340], GAP = 40; // of a new Load Image: high enough for its preview, which would else make it grow later
const MOST = 20; // nodes on the way

const isPicture = ({ type }) => type.startsWith("image/");
const inputOf = (node, name) => node.inputs?.find((input) => input.name === name);

// The menu of a node that takes uploads into the input folder.
function menuOf(node) {
  const upload = Object.entries(inputsOf(node.constructor)).find(([, [, options]]) => options?.image_upload && (options.image_folder ?? "input") === "input");
  return upload && node.widgets?.find(({ name }) => name === upload[0]);
}

// The node that loads this input's picture, behind others with one picture each.
function loaderOf(node, input) {
  for (let n = 0; input && n < MOST; n++) {
    node = originOf(node, node.inputs.indexOf(input))?.node;
    if (!node || menuOf(node)) return node;
    const pictures = (node.inputs ?? []).filter(({ type }, n) => (type === "IMAGE" || type === "*") && isConnected(node, n));
    input = pictures.length === 1 ? pictures[0] : undefined;
  }
}

async function upload(file, subfolder) {
  const body = new FormData();
  body.append("image", file);
  body.append("subfolder", subfolder);
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!answer.ok) throw new Error(text("drop.refused", { name: file.name, status: answer.status, statusText: answer.statusText }));
  const made = await answer.json();
  return made.subfolder ? `${made.subfolder}/${made.name}` : made.name;
}

// On the left of the node, below what stands there.
function freePlace(node) {
  const place = [node.pos[0] - SIZE[0] - GAP, node.pos[1]];
  const title = globalThis.LiteGraph?.NODE_TITLE_HEIGHT ?? 30;
  const inTheWay = ({ pos, size }) =>
    pos[0] < place[0] + SIZE[0] && place[0] < pos[0] + size[0] && pos[1] - title < place[1] + SIZE[1] && place[1] - title < pos[1] + size[1];
  for (let other; (other = node.graph._nodes.find(inTheWay)); ) place[1] = other.pos[1] + other.size[1] + title + GAP;
  return place;
}

function newLoader(node) {
  const loader = globalThis.LiteGraph.createNode(LOADER);
  loader.pos = freePlace(node);
  node.graph.add(loader);
  loader.setSize?.([...SIZE]);
  loader.connect(0, node, node.inputs.indexOf(inputOf(node, INPUT)));
  return loader;
}

function show(node, name) {
  const loader = loaderOf(node, inputOf(node, INPUT)) ?? newLoader(node);
  const menu = menuOf(loader);
  const known = menu.options?.values;
  if (Array.isArray(known) && !known.includes(name)) known.push(name);
  menu.value = name;
  menu.callback?.(name, app.canvas, loader);
  node.graph.setDirtyCanvas?.(true, true);
}

function say(severity, detail) {
  app.extensionManager?.toast?.add({ severity, summary: text("pack"), detail, life: 12000 });
}

async function take(node, files, subfolder = "") {
  try {
    const name = await upload(files[0], subfolder);
    if (!node.graph) return; // it was removed meanwhile
    app.canvas.emitBeforeChange?.(); // all of it is one step of the page's undo
    show(node, name);
    app.canvas.emitAfterChange?.();
    if (files.length > 1) say("info", text("drop.several", { name, count: files.length }));
  } catch (error) {
    say("error", error.message);
  }
}

function onPaste(event) {
  const [node, ...more] = Object.values(app.canvas?.selected_nodes ?? {});
  const files = [...(event.clipboardData?.files ?? [])].filter(isPicture);
  const typing = event.target?.closest?.("input, textarea, [contenteditable='true']");
  if (node?.comfyClass !== NODE || more.length || !files.length || typing) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  take(node, files, "pasted"); // as the page's own Load Image does
}

app.registerExtension({
  name: "image_prompt.drop_picture",
  init: () => document.addEventListener("paste", onPaste, true),
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const { onDragOver, onDragDrop } = node;
    node.onDragOver = function (event) {
      const items = [...(event.dataTransfer?.items ?? [])];
      return items.some((item) => item.kind === "file" && isPicture(item)) || Boolean(onDragOver?.call(this, event));
    };
    node.onDragDrop = function (event, ...more) {
      const files = [...(event.dataTransfer?.files ?? [])].filter(isPicture);
      if (!files.length) return onDragDrop?.call(this, event, ...more) ?? false;
      take(this, files);
      return true;
    };
  },
});
