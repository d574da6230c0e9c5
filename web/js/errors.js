// Our errors as a toast: the sentence alone, readable where the page's own column is narrow.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const KINDS = new Set([
  "ImagePromptError", "CheckpointError", "UnknownAdapterError", "MismatchError", "WrongEncoderError", "MissingFileError",
  "MissingPackageError", "SettingError", "RemoteError", "WriteError",
]);
const LIFE = 20000; // milliseconds

api.addEventListener("execution_error", ({ detail: error }) => {
  if (!KINDS.has(error?.exception_type)) return;
  const node = app.graph?.getNodeById?.(error.node_id);
  const summary = node?.title ?? error.node_type ?? "Image Prompt";
  app.extensionManager?.toast?.add({ severity: "error", summary, detail: error.exception_message?.trim(), life: LIFE });
});
