// How regions look: each in its colour, as soft as its mask, with what was erased left out.
import { svg } from "./editor.js";

export const COLOURS = ["#4a90d9", "#f0b64a", "#5fb760", "#d9605a", "#a678d8", "#3fc1b8", "#e58bb8", "#9aa33b"];

export function drawRegion(editor, region, n) {
  const id = `${editor.id}-${n}`;
  const [width, height] = editor.size;
  const all = { x: 0, y: 0, width, height };
  const defined = svg("defs", {}, editor.svg);
  const mask = svg("mask", { id, maskUnits: "userSpaceOnUse", ...all }, defined);
  const edge = region.soft * Math.min(width, height);
  if (edge) svg("feGaussianBlur", { stdDeviation: edge / 3 }, filterAround(defined, `${id}-soft`, all));
  const shapes = svg("g", edge ? { filter: `url(#${id}-soft)` } : {}, mask);
  for (const shape of region.shapes) drawShape(shapes, shape, width, height);
  svg("rect", { ...all, class: "region", fill: COLOURS[n], mask: `url(#${id})` }, editor.svg);
  drawNumber(editor, region, n);
}

function filterAround(parent, id, { width, height }) {
  const around = { x: -width, y: -height, width: 3 * width, height: 3 * height };
  return svg("filter", { id, filterUnits: "userSpaceOnUse", ...around }, parent);
}

function drawShape(parent, { box, brush, points, erases }, width, height) {
  if (box) return void svg("rect", { ...scaled(beyond(box), width, height), fill: "white" }, parent);
  const way = points.length > 1 ? points : [points[0], points[0]];
  const at = way.map(([x, y]) => `${x * width} ${y * height}`).join(" L");
  const look = { fill: "none", "stroke-linecap": "round", "stroke-linejoin": "round" };
  const size = { "stroke-width": brush * Math.min(width, height), stroke: erases ? "black" : "white" };
  svg("path", { d: `M${at}`, ...look, ...size }, parent);
}

// A side on the picture's own border is no edge: nothing fades there.
function beyond([left, top, wide, high]) {
  const [x, y] = [left <= 0 ? -1 : left, top <= 0 ? -1 : top];
  const [right, bottom] = [left + wide >= 0.999 ? 2 : left + wide, top + high >= 0.999 ? 2 : top + high];
  return [x, y, right - x, bottom - y];
}

const scaled = ([left, top, wide, high], width, height) =>
  ({ x: left * width, y: top * height, width: wide * width, height: high * height });

function drawNumber(editor, { shapes }, n) {
  const first = shapes.find(({ erases }) => !erases);
  if (!first) return;
  const [width, height] = editor.size;
  const [left, top, wide, high] = first.box ?? [...first.points[Math.floor(first.points.length / 2)], 0, 0];
  const size = Math.min(width, height) / 12;
  const place = { x: (left + wide / 2) * width, y: (top + high / 2) * height, style: `font-size: ${size}px` };
  svg("text", { class: "number", ...place }, editor.svg).textContent = n + 1;
}

// Boxes of the chosen region with their corners; where the brush is.
export function drawSelection(editor, region) {
  const [width, height] = editor.size;
  const unit = editor.pixel[0] * width; // of the drawing, for a pixel of the screen
  if (!Number.isFinite(unit) || !region) return;
  const colour = COLOURS[editor.chosen];
  for (const { box } of region.shapes.filter((shape) => shape.box)) {
    const outline = scaled(box, width, height);
    svg("rect", { ...outline, class: "outline", stroke: colour, "stroke-width": 1.5 * unit }, editor.svg);
    for (const x of [outline.x, outline.x + outline.width])
      for (const y of [outline.y, outline.y + outline.height])
        svg("circle", { class: "corner", cx: x, cy: y, r: 4 * unit, fill: colour, "stroke-width": unit }, editor.svg);
  }
  if (editor.tools.tool === "box" || !editor.pointer) return;
  const [x, y] = editor.pointer;
  const size = { r: (editor.tools.brush * Math.min(width, height)) / 2, "stroke-width": unit };
  svg("circle", { class: "brush", cx: x * width, cy: y * height, ...size }, editor.svg);
}
