// Search words of our subgraph blueprints: the page looks for them in the host's list, where a pack's have none.
import { api } from "../../../scripts/api.js";
import { FOLDER } from "./folder.js";

const PACK = `custom_nodes.${FOLDER}`;
const listed = api.getGlobalSubgraphs;

async function addWords(entry) {
  const content = JSON.parse(await entry.data);
  entry.info.search_aliases ??= content.extra?.BlueprintSearchAliases;
}

if (listed) {
  api.getGlobalSubgraphs = async function (...given) {
    const found = await listed.apply(this, given);
    const ours = Object.values(found ?? {}).filter(({ info, data }) => info?.node_pack === PACK && data);
    // one that cannot be read is the page's to report
    await Promise.allSettled(ours.map(addWords));
    return found;
  };
}
