// Nodes as files and the page's registry describe them.

export const registered = (type) => globalThis.LiteGraph?.registered_node_types?.[type];

const packOf = (nodeType) => nodeType?.nodeData?.python_module;
export const isOurType = (nodeType) =>
  packOf(nodeType) !== undefined && packOf(nodeType) === packOf(registered("ImagePromptLoader"));

export const inputsOf = (nodeType) => {
  const { required, optional } = nodeType?.nodeData?.input ?? {};
  return { ...required, ...optional };
};

// Of a node in a file.
export const hasInput = (node, ...names) => (node.inputs ?? []).some((input) => names.includes(input.name));

export function retype(node, type) {
  node.type = type;
  if (node.properties?.["Node name for S&R"]) node.properties["Node name for S&R"] = type;
}
