// Charts of the last hour: waiting messages, and below them the rates, in upwards and out downwards.

import { h, setText, svg } from "./dom.js";
import { clock, count, plural, rate } from "./format.js";
import { LastHour, pointsOf, thinned } from "./samples.js";

const HEIGHT = 190;
const DEPTH_TOP = 8;
const DEPTH_BOTTOM = 92;
const FLOW_MIDDLE = 138;
const FLOW_HEIGHT = 30;
const TIMES_BOTTOM = 174;
// A figure in the font of the scales.
const FIGURE_WIDTH = 6.7;
const MINUTE_MS = 60_000;
const SHOWN_LEAST_MS = MINUTE_MS;
// A longer time has one point for ten seconds, because more would be a blur.
const SMOOTHED_FROM_MS = 5 * MINUTE_MS;
// The times that the user can choose from.
const CHOICES = { "5 min": 5 * MINUTE_MS, "1 h": 60 * MINUTE_MS };
let chosen = "1 h";
// Possible distances of the time lines; the first that leaves room for each label is used.
const STEPS_MS = [15_000, 30_000, MINUTE_MS, 2 * MINUTE_MS, 5 * MINUTE_MS, 10 * MINUTE_MS, 15 * MINUTE_MS];
const LINES_AT_MOST = 8;
const LINE_WIDTH_LEAST = 64;

/** Rounds the largest value up to a round whole number, so that the scale does not change with every value. */
function roundUp(value, least) {
  if (value <= least) return least;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 7.5, 10].map((step) => step * power).find((most) => most >= value && Number.isInteger(most));
}

/** The SVG path through the points; null interrupts it. With `close`, the area between the line and that height. */
function path(points, x, y, close) {
  const parts = [];
  let first = null;
  let last = null;
  const end = () => { if (close !== undefined && last !== null) parts.push(`L${last} ${close}L${first} ${close}Z`); };
  for (const point of points) {
    if (point === null) {
      end();
      first = last = null;
      continue;
    }
    const at = x(point).toFixed(1);
    parts.push(`${last === null ? "M" : "L"}${at} ${y(point).toFixed(1)}`);
    if (last === null) first = at;
    last = at;
  }
  end();
  return parts.join("");
}

export class Chart {
  #label;
  #queue = null;
  #samples = [];
  #now = 0;
  #pointer = null;
  #scheduled = false;

  /**
   * @param label what the chart is of.
   * @param target the path with its samples of the last hour; empty if there is none.
   */
  constructor(label, target) {
    this.#label = label;
    this.lastHour = new LastHour(target);
    this.choices = Object.keys(CHOICES).map((choice) => h("button", { type: "button", class: "filter", on: { click: () => this.#choose(choice) } }, choice));
    this.figure = h("figure", { class: "chart" },
      h("figcaption", { class: "chart-key" },
        ...["depth", "in", "out"].map((what, i) => h("span", { class: `legend ${what}` }, ["Messages waiting", "In / s", "Out / s"][i])),
        this.readout = h("span", { class: "readout" }), h("span", { class: "choices", role: "group", "aria-label": "Time shown" }, ...this.choices)),
      this.svg = svg("svg", { role: "img", "aria-label": label, height: HEIGHT }));
    this.#build();
    this.svg.addEventListener("pointermove", (event) => { this.#pointer = event.clientX; this.#draw(); });
    this.svg.addEventListener("pointerleave", () => { this.#pointer = null; this.#draw(); });
    new ResizeObserver(() => this.#draw()).observe(this.svg);
    this.#choose(chosen);
  }

  #choose(choice) {
    chosen = choice;
    for (const button of this.choices) button.setAttribute("aria-pressed", String(button.textContent === chosen));
    this.#draw();
  }

  /** The scales are at the left; the plot beside them cuts off what does not fit. */
  #build() {
    const shape = (name, kind = "path", attributes = {}) => {
      this[name] = svg(kind, { ...attributes, class: name });
      return this[name];
    };
    const scale = (name, y) => shape(name, "text", { y });
    this.grid = svg("g", { class: "grid" });
    this.times = Array.from({ length: LINES_AT_MOST }, () => [svg("line", { y1: DEPTH_TOP, y2: TIMES_BOTTOM }), svg("text", { y: HEIGHT - 3 })]);
    this.grid.append(...this.times.flat());
    for (const y of [DEPTH_TOP, FLOW_MIDDLE - FLOW_HEIGHT, FLOW_MIDDLE + FLOW_HEIGHT]) this.grid.append(svg("line", { x2: "100%", y1: y, y2: y, class: "level" }));
    for (const y of [DEPTH_BOTTOM, FLOW_MIDDLE]) this.grid.append(svg("line", { x2: "100%", y1: y, y2: y, class: "base" }));
    this.plot = svg("svg", { height: HEIGHT }, this.grid, shape("depth-area"), shape("depth-line"), shape("in-area"), shape("out-area"),
      shape("cursor", "line", { y1: DEPTH_TOP, y2: TIMES_BOTTOM }));
    this.svg.append(svg("g", { class: "scales" }, scale("depth-most", DEPTH_TOP + 4), scale("depth-least", DEPTH_BOTTOM + 4),
      scale("in-most", FLOW_MIDDLE - FLOW_HEIGHT + 4), scale("flow-least", FLOW_MIDDLE + 4), scale("out-most", FLOW_MIDDLE + FLOW_HEIGHT + 4)), this.plot);
    for (const name of ["depth-least", "flow-least"]) this[name].textContent = "0";
  }

  /** Shows the queue's samples. `now` is the server's time; 0 while it is unknown. */
  show(queue, now) {
    if (now) this.lastHour.refresh(queue.model);
    else this.lastHour.forget();
    this.#queue = queue;
    this.#samples = this.lastHour.join(queue.series());
    this.#now = now;
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => { this.#scheduled = false; this.#draw(); });
  }

  #draw() {
    const whole = this.svg.clientWidth;
    if (!whole) return;
    const known = this.#now - (this.#samples[0]?.time ?? this.#now);
    const window = Math.max(SHOWN_LEAST_MS, Math.min(known, CHOICES[chosen]));
    const start = this.#now - window;
    const samples = this.#samples.filter((_, i) => (this.#samples[i + 1]?.time ?? this.#now) >= start);
    const points = pointsOf(window > SMOOTHED_FROM_MS ? thinned(samples) : samples);
    const real = points.filter((point) => point !== null);
    const deepest = roundUp(Math.max(0, ...real.map((point) => point.ready)), 4);
    const fastest = roundUp(Math.max(0, ...real.map((point) => Math.max(point.in, point.out))), 2);
    const width = whole - this.#drawScales(deepest, fastest);
    const x = (point) => width * (1 - (this.#now - point.time) / window);
    const depth = (point) => DEPTH_BOTTOM - ((DEPTH_BOTTOM - DEPTH_TOP) * point.ready) / deepest;
    const flowing = points.map((point) => (point?.in === null ? null : point));
    const flow = (what, sign) => (point) => FLOW_MIDDLE - (sign * FLOW_HEIGHT * point[what]) / fastest;
    this["depth-area"].setAttribute("d", path(points, x, depth, DEPTH_BOTTOM));
    this["depth-line"].setAttribute("d", path(points, x, depth));
    this["in-area"].setAttribute("d", path(flowing, x, flow("in", 1), FLOW_MIDDLE));
    this["out-area"].setAttribute("d", path(flowing, x, flow("out", -1), FLOW_MIDDLE));
    this.#drawTimes(width, window);
    this.#drawCursor(real, x);
    this.#describe(real, window);
  }

  /** Returns the width of the scales. */
  #drawScales(deepest, fastest) {
    const texts = { "depth-most": count(deepest), "in-most": `${rate(fastest)} / s in`, "out-most": `${rate(fastest)} / s out` };
    const left = Math.ceil(Math.max(...Object.values(texts).map((text) => text.length)) * FIGURE_WIDTH) + 8;
    for (const [name, text] of Object.entries(texts)) setText(this[name], text);
    for (const text of this.svg.firstChild.children) text.setAttribute("x", left - 7);
    this.plot.setAttribute("x", left);
    return left;
  }

  /** The current figures, for screen readers. */
  #describe(real, window) {
    const { row } = this.#queue ?? {};
    const now = row && this.#now ? `: ${plural(row.ready, "message")} waiting, ${rate(this.#queue.rate("in"))} in and ${rate(this.#queue.rate("out"))} out per second now`
      + `; at most ${count(Math.max(row.ready, ...real.map((point) => point.ready)))} waiting in the last ${plural(Math.round(window / MINUTE_MS), "minute")}` : "";
    this.svg.setAttribute("aria-label", `${this.#label}${now}.`);
  }

  /** The lines move with the server's time; they are hidden while it is unknown. */
  #drawTimes(width, window) {
    this.grid.classList.toggle("timeless", !this.#now);
    if (!this.#now) return;
    const most = Math.min(LINES_AT_MOST, Math.max(1, Math.floor(width / LINE_WIDTH_LEAST)));
    const step = STEPS_MS.find((each) => window / each <= most) ?? STEPS_MS.at(-1);
    this.times.forEach(([line, text], i) => {
      const time = (Math.floor(this.#now / step) - i) * step;
      const at = width * (1 - (this.#now - time) / window);
      line.setAttribute("x1", at);
      line.setAttribute("x2", at);
      text.setAttribute("x", at);
      setText(text, at > 26 && at < width - 26 ? clock(time).slice(0, step < MINUTE_MS ? 8 : 5) : "");
    });
  }

  #drawCursor(real, x) {
    const pointer = this.#pointer === null ? null : this.#pointer - this.plot.getBoundingClientRect().left;
    const near = pointer === null || !real.length ? null
      : real.reduce((best, point) => (Math.abs(x(point) - pointer) < Math.abs(x(best) - pointer) ? point : best));
    const at = near ? x(near) : -10;
    for (const name of ["x1", "x2"]) this.cursor.setAttribute(name, at);
    setText(this.readout, near ? `${clock(near.time)} — ${count(near.ready)} waiting, ${rate(near.in)} in, ${rate(near.out)} out per second` : "");
  }
}

const SPARK_WIDTH = 96;
const SPARK_HEIGHT = 20;
const SPARK_MS = 2 * 60_000;

/** A word-sized chart (sparkline) of a queue's waiting messages in the last two minutes. */
export function spark() {
  return svg("svg", { class: "spark", width: SPARK_WIDTH, height: SPARK_HEIGHT, "aria-hidden": "true" },
    svg("path", { class: "depth-area" }), svg("path", { class: "depth-line" }));
}

/** @param lastHour what the server knows of the time before the page was opened. */
export function drawSpark(element, queue, now, lastHour) {
  const start = now - SPARK_MS;
  const timeOf = (sample) => queue.model.timeOf(sample.tick) ?? start;
  const { samples } = queue;
  let i = samples.length - 1;
  while (i > 0 && timeOf(samples[i]) > start) i -= 1;
  const own = samples.slice(Math.max(0, i)).map((sample) => ({ time: timeOf(sample), ready: sample.ready }));
  const before = own.length && own[0].time > start ? lastHour.recent(queue.row.name).filter(({ time }) => time < own[0].time) : [];
  // Draw steps: nothing changed between two samples.
  const points = [];
  for (const { time, ready } of [...before, ...own]) {
    const shown = Math.max(start, time);
    if (points.length) points.push({ time: shown, ready: points.at(-1).ready });
    points.push({ time: shown, ready });
  }
  if (points.length) points.push({ time: now, ready: points.at(-1).ready });
  const most = Math.max(4, ...points.map((point) => point.ready));
  const x = (point) => SPARK_WIDTH * (1 - (now - point.time) / SPARK_MS);
  const y = (point) => SPARK_HEIGHT - 1.5 - ((SPARK_HEIGHT - 4) * point.ready) / most;
  element.children[0].setAttribute("d", path(points, x, y, SPARK_HEIGHT));
  element.children[1].setAttribute("d", path(points, x, y));
}
