// Our nodes open as wide as they were saved: the page makes every node as wide as its title, over what stands beside it.
import { app } from "../../../scripts/app.js";
import { isOurType } from "./node_types.js";

const ROOT = "root"; // of graphs; subgraphs have ids
let widths = new Map(); // by graph and node

const keyOf = (graph, id) => `${graph} ${id}`;
const graphOf = (node) => (node.graph === (app.rootGraph ?? app.graph) ? ROOT : node.graph?.id);

app.registerExtension({
  name: "image_prompt.saved_width",
  beforeConfigureGraph(graph) {
    const parts = [[ROOT, graph], ...(graph.definitions?.subgraphs ?? []).map((part) => [part.id, part])];
    widths = new Map(parts.flatMap(([id, { nodes = [] }]) => nodes.map((node) => [keyOf(id, node.id), node.size?.[0]])));
  },
  loadedGraphNode(node) {
    if (!isOurType(node.constructor)) return;
    const saved = widths.get(keyOf(graphOf(node), node.id));
    if (saved > 0 && saved < node.size[0]) node.setSize([saved, node.size[1]]);
  },
});
