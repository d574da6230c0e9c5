// The pack's folder in custom_nodes, by which the host names what is in it.
export const FOLDER = decodeURIComponent(new URL(import.meta.url).pathname.match(/\/extensions\/([^/]+)\//)?.[1] ?? "");
