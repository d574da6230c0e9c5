// Our templates in order of their numbers: the host lists them as the file system does.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const FOLDER = decodeURIComponent(new URL(import.meta.url).pathname.match(/\/extensions\/([^/]+)\//)?.[1] ?? "");
const listed = api.getWorkflowTemplates;

app.registerExtension({
  name: "image_prompt.template_order",
  init() {
    if (!listed) return;
    api.getWorkflowTemplates = async function (...given) {
      const templates = await listed.apply(this, given);
      templates?.[FOLDER]?.sort?.();
      return templates;
    };
  },
});
