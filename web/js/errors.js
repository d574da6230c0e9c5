// Our errors: as a toast, the sentence alone, readable where the page's own column is narrow; and on the node that they are about.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { isOurType } from "./node_types.js";

const KINDS = new Set([
  "ImagePromptError", "CheckpointError", "UnknownAdapterError", "MismatchError", "WrongEncoderError", "MissingFileError",
  "MissingPackageError", "SettingError", "RemoteError", "WriteError",
]);
const LIFE = 20000; // milliseconds
const PART = /^.+? #([\w:.-]+): /; // of a graph, as ipadapter_core/errors.py says it

// By the host's id, which has the ids of the subgraphs around the node in front, with colons between.
function nodeOf(id) {
  const path = String(id ?? "").split(":");
  const last = path.pop();
  const graph = path.reduce((at, part) => at?.getNodeById?.(part)?.subgraph, app.rootGraph ?? app.graph);
  return graph?.getNodeById?.(last);
}

// What arises while a picture is sampled, the host lays on the sampler. The page marks the node that this object names.
function layOnOurs(error) {
  const [words = "", id] = error.exception_message?.match(PART) ?? [];
  const node = nodeOf(id);
  if (!isOurType(node?.constructor)) return error.exception_message;
  Object.assign(error, { node_id: id, node_type: node.type });
  return error.exception_message.slice(words.length);
}

// Before the page's own listeners, whenever they came.
function onError({ detail: error }) {
  if (!KINDS.has(error?.exception_type)) return;
  const detail = layOnOurs(error)?.trim();
  const summary = nodeOf(error.node_id)?.title ?? error.node_type ?? "Image Prompt";
  app.extensionManager?.toast?.add({ severity: "error", summary, detail, life: LIFE });
}

api.addEventListener("execution_error", onError, { capture: true });
