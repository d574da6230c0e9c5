// The blocks of the model that is connected to a node: of the file that the loader at the other end of its links has chosen.
import { api } from "../../../scripts/api.js";
import { isConnected, originOf } from "./links.js";

const LOADERS = ["ckpt_name", "unet_name"]; // inputs of loaders that hold the file of a model
const MOST = 100; // nodes on the way
const answers = new Map(); // by input and file

function loaderOf(node) {
  for (let n = 0; node && n < MOST; n++) {
    const file = node.widgets?.find(({ name }) => LOADERS.includes(name));
    if (file) return { input: file.name, name: file.value };
    const model = (node.inputs ?? []).findIndex(({ type }, n) => type === "MODEL" && isConnected(node, n));
    node = originOf(node, model)?.node;
  }
}

// { family, blocks, style, composition }; undefined where no loader is found or the server does not know its file.
export async function modelBlocks(node) {
  const asked = loaderOf(node);
  if (!asked) return undefined;
  const key = JSON.stringify(asked);
  if (!answers.has(key)) {
    const headers = { "Content-Type": "application/json" };
    const answer = api.fetchApi("/image_prompt/blocks", { method: "POST", body: key, headers });
    answers.set(key, answer.then((made) => (made.ok ? made.json() : {})).catch(() => ({})));
  }
  const known = await answers.get(key);
  if (!known.blocks) answers.delete(key); // the file may come
  return known.blocks && known;
}
