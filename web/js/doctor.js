// The report of Image Prompt: Doctor as a table, with a button for each released file that a goal still needs.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { text } from "./strings.js";

const NODE = "ImagePromptDoctor";
const ROUTE = "/image_prompt/downloads";
const HEADS = ["file", "what", "encoder", "state"];
const LEAST = 160; // height of the table, in pixels
const OFTEN = 700; // milliseconds between two looks at running downloads
const RUNNING = ["waiting", "loading"];

function made(name, className, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

const size = (megabytes) => (megabytes >= 1000 ? `${(megabytes / 1000).toFixed(1)} GB` : `${Math.round(megabytes)} MB`);
const mark = (good) => (good === null ? made("span", "hint", "·") : made("span", good ? "good" : "bad", good ? "✓" : "✗"));
const goodness = (state) => (state === "not used here" ? null : state === "ok");

async function ask(names) {
  const headers = { "Content-Type": "application/json" };
  const answer = await api.fetchApi(ROUTE, { method: "POST", body: JSON.stringify(names), headers });
  return answer.ok ? answer.json() : { refused: text("doctor.refused", answer) };
}

class DoctorTable {
  constructor() {
    this.root = made("div", "image-prompt-doctor");
    this.places = {}; // by the file's name: where its button or progress stands, once for each goal
    this.showHint(text("doctor.empty"));
  }

  showHint(hint) {
    this.root.replaceChildren(made("div", "hint", hint));
  }

  show(report) {
    this.report = report;
    this.places = {};
    const parts = [report.rows.length ? this.table(report.rows) : made("div", "hint", text("doctor.none"))];
    const sections = [
      ["broken", report.broken.map((line) => made("div", "goal", mark(false), " ", line))],
      ["goals", report.goals.map((goal) => this.goal(goal))],
      ["notes", report.notes.map((line) => made("div", "goal", line))],
    ];
    for (const [title, lines] of sections) if (lines.length) parts.push(made("h4", "", text(`doctor.${title}`)), ...lines);
    this.root.replaceChildren(...parts);
    if (Object.keys(report.files).length) this.look([]);
  }

  table(rows) {
    const line = ({ file, what, family, encoder, state }) => {
      const cells = [mark(goodness(state)), file, family ? `${what}, ${family}` : what, encoder, state];
      return made("tr", "", ...cells.map((cell) => made("td", "", cell)));
    };
    return made("table", "", made("tr", "", made("th", ""), ...HEADS.map((head) => made("th", "", text(`doctor.head.${head}`)))), ...rows.map(line));
  }

  goal(goal) {
    const needs = goal.needs.filter((name) => this.report.files[name]);
    if (goal.ready || !needs.length) return made("div", "goal", mark(goal.ready), ` ${text("doctor.goal", goal)}`);
    const title = made("div", "", mark(false), ` ${text("doctor.needs", goal)} `);
    if (needs.length > 1 && this.report.downloads) {
      const total = needs.reduce((sum, name) => sum + this.report.files[name].megabytes, 0);
      title.append(this.button(text("doctor.all", { size: size(total) }), needs));
    }
    return made("div", "goal", title, ...needs.map((name) => this.file(name)));
  }

  file(name) {
    const { megabytes, folder, licence, commercial, page } = this.report.files[name];
    const link = made("a", "", commercial ? text("doctor.page") : licence);
    Object.assign(link, { href: page, target: "_blank", rel: "noopener noreferrer" });
    const place = made("span", "state");
    (this.places[name] ??= []).push(place);
    this.fill(place, name);
    const line = text("doctor.file", { name, size: size(megabytes), folder });
    return made("div", "file", made("span", "name", line), link, place);
  }

  // What stands beside a file: a button, how far it is, or how it ended.
  fill(place, name, state) {
    if (RUNNING.includes(state?.state)) {
      const bar = made("progress");
      if (state.total) Object.assign(bar, { max: state.total, value: state.done });
      const far = state.total ? text("doctor.far", { done: size(state.done / 1e6), total: size(state.total / 1e6) }) : text(`doctor.${state.state}`);
      return place.replaceChildren(bar, ` ${far}`);
    }
    if (state?.state === "ready") {
      return place.replaceChildren(mark(true), ` ${text("doctor.ready")}`);
    }
    const parts = state?.text ? [made("span", "bad", state.text), " "] : [];
    if (this.report.downloads) parts.push(this.button(state?.text ? text("doctor.again") : text("doctor.download"), [name]));
    place.replaceChildren(...parts);
  }

  button(label, names) {
    const button = made("button", "", label);
    button.addEventListener("click", () => this.look(names));
    return button;
  }

  // Ask the server to get these files, or only how far it is; again while something runs.
  async look(names) {
    const { states = {}, refused } = await ask(names).catch((error) => ({ refused: String(error) }));
    if (refused) app.extensionManager?.toast?.add({ severity: "error", summary: text("pack"), detail: refused, life: 15000 });
    for (const [name, places] of Object.entries(this.places))
      if (states[name]) for (const place of places) this.fill(place, name, states[name]);
    clearTimeout(this.timer);
    const runs = Object.keys(this.places).some((name) => RUNNING.includes(states[name]?.state));
    if (runs && this.root.isConnected) this.timer = setTimeout(() => this.look([]), OFTEN);
  }
}

app.registerExtension({
  name: "image_prompt.doctor",
  settings: [
    {
      id: "ImagePrompt.Downloads",
      category: ["Image Prompt", "Doctor", "Downloads"],
      name: "Download button of the Doctor",
      tooltip: "Lets the Doctor node get released files: known ones only, from their publishers' pages, checked by sha256.",
      type: "boolean",
      defaultValue: true,
    },
  ],
  init() {
    const link = document.createElement("link");
    Object.assign(link, { rel: "stylesheet", href: new URL("doctor.css", import.meta.url).href });
    document.head.append(link);
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE || !node.addDOMWidget) return;
    const table = new DoctorTable();
    const options = { serialize: false, hideOnZoom: false, getMinHeight: () => LEAST };
    node.addDOMWidget("report", "image_prompt_doctor", table.root, options).serialize = false;
    const executed = node.onExecuted;
    node.onExecuted = function (output) {
      const result = executed?.apply(this, arguments);
      if (output?.report?.[0]) table.show(output.report[0]);
      return result;
    };
    const [width, height] = node.size;
    node.setSize?.([Math.max(width, 520), Math.max(height, 380)]);
  },
});
