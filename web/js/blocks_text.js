// Weights of blocks as text, as the server reads it: 'all: 0, double 3: 0.5, double 5-8: 0.2, single: 0'.
import { round } from "./editor.js";

// By label, of the labels that the text names; null where the text is none, which the node says when it runs.
export function parse(written, labels) {
  const weights = new Map();
  for (const part of String(written ?? "").split(/[,;\n]/).filter((each) => each.trim())) {
    const [name, weight, ...more] = part.split(":").map((each) => each.trim().toLowerCase());
    const named = labels.filter((label) => isNamed(label, name));
    if (!weight || more.length || !Number.isFinite(Number(weight)) || !named.length) return null;
    for (const label of named) weights.set(label, Number(weight));
  }
  return weights;
}

function isNamed(label, name) {
  const [stage, number] = label.split(" ");
  const [, wanted, first, last] = name.match(/^([a-z]+)(?:\s+(\d+)(?:\s*-\s*(\d+))?)?$/) ?? [];
  if (wanted === "all" && first === undefined) return true;
  if (wanted !== stage) return false;
  return first === undefined || (Number(number) >= Number(first) && Number(number) <= Number(last ?? first));
}

// Neighbours of one weight as a range.
export function write(weights, labels) {
  const runs = [];
  for (const label of labels.filter((each) => weights.has(each))) {
    const [stage, number] = [label.split(" ")[0], label.includes(" ") ? Number(label.split(" ")[1]) : undefined];
    const weight = weights.get(label);
    const run = runs.at(-1);
    if (run && run.stage === stage && run.weight === weight && run.last + 1 === number) run.last = number;
    else runs.push({ stage, first: number, last: number, weight });
  }
  return runs.map(({ stage, first, last, weight }) => `${name(stage, first, last)}: ${round(weight, 3)}`).join(", ");
}

const name = (stage, first, last) => (first === undefined ? stage : last > first ? `${stage} ${first}-${last}` : `${stage} ${first}`);
