// The text of regions, as the server reads it: 'box 0,0,0.5,1 weight 0.8 soft 0.05; stroke 0.2 0.6,0.5 0.9,0.5'.
import { round } from "./editor.js";

const WORDS = ["box", "stroke", "erase", "weight", "soft"];
export const [MOST_REGIONS, MOST_POINTS] = [8, 2048];

// [{ shapes, weight, soft }]; a shape is { box: [left, top, width, height] } or { brush, points, erases }. null where the
// text is none, which the node says when it runs.
export function parse(written) {
  const parts = String(written ?? "").split(/[;\n]/).filter((part) => part.trim());
  const regions = parts.map((part) => parseRegion(part.trim().split(/\s+/)));
  return regions.includes(null) || regions.length > MOST_REGIONS ? null : regions;
}

export const empty = () => ({ shapes: [], weight: 1, soft: 0 });

function parseRegion(words) {
  const region = empty();
  while (words.length) {
    const word = words.shift();
    const given = [];
    while (words.length && !WORDS.includes(words[0])) given.push(words.shift().split(",").map(Number));
    if (!WORDS.includes(word) || !given.flat().every(Number.isFinite) || !add(region, word, given)) return null;
  }
  return region;
}

function add(region, word, given) {
  const sizes = given.map((numbers) => numbers.length).join();
  if (word === "box") return sizes === "4" && region.shapes.push({ box: given[0] });
  if (word === "weight" || word === "soft") {
    [[region[word]]] = given.length ? given : [[NaN]];
    return sizes === "1";
  }
  const [[brush], ...points] = given.length ? given : [[]];
  return /^1(,2)+$/.test(sizes) && region.shapes.push({ brush, points, erases: word === "erase" });
}

const numbers = (values) => values.map((value) => round(value, 3)).join();
const shapeText = ({ box, brush, points, erases }) =>
  box ? `box ${numbers(box)}` : `${erases ? "erase" : "stroke"} ${round(brush, 3)} ${points.map(numbers).join(" ")}`;

export function write(regions) {
  return regions.map(({ shapes, weight, soft }) => {
    const parts = shapes.map(shapeText);
    if (weight !== 1 || !parts.length) parts.push(`weight ${round(weight, 3)}`);
    if (soft) parts.push(`soft ${round(soft, 3)}`);
    return parts.join(" ");
  }).join("; ");
}

export const pointsIn = (regions) => regions.flatMap(({ shapes }) => shapes).reduce((sum, s) => sum + (s.points?.length ?? 0), 0);

// The way without points that lie nearly (within `near`) on the line of their neighbours.
export function simplified(points, near) {
  if (points.length < 3) return points;
  const [first, last] = [points[0], points.at(-1)];
  const away = points.map((point) => distance(point, first, last));
  const farthest = away.indexOf(Math.max(...away));
  if (away[farthest] <= near) return [first, last];
  return [...simplified(points.slice(0, farthest + 1), near).slice(0, -1), ...simplified(points.slice(farthest), near)];
}

function distance([x, y], [ax, ay], [bx, by]) {
  const length = Math.hypot(bx - ax, by - ay);
  return length ? Math.abs((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / length : Math.hypot(x - ax, y - ay);
}
