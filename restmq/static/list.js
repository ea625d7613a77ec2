// The list of queues. Only visible rows are in the document, so that the list may have thousands.

import { drawSpark, spark } from "./chart.js";
import { h, nameNodes, setClass, setText } from "./dom.js";
import { age, count, rate } from "./format.js";

const ROWS_BEYOND_SIGHT = 6;
const RESORT_MS = 3000;
// A column folds when no row has had a value for this time, so that a value that comes and goes does not move the others.
const FOLD_MS = 60_000;

const number = (value) => (queue) => queue.row[value];
const counted = (name, heading, title, of = number(name)) => ({
  name, heading, title, key: of, show: (queue) => count(of(queue)), isUsed: (whole) => of(whole) > 0,
});
const flow = (name, heading) => ({
  name, heading, key: (queue) => queue.rate(name) ?? 0, show: (queue) => rate(queue.rate(name)), isUsed: (whole) => whole.rate(name) !== 0,
});

// Each column's name, heading, sort key and text. `isUsed` tells from the sums of all queues whether any row has a value;
// a column without it is always shown. The style sheet selects the columns that fit: on narrow screens the sum
// `consumers` replaces the three kinds of consumers.
export const COLUMNS = [
  { name: "name", heading: "Queue", key: (queue) => queue.row.name },
  { name: "trend", heading: "2 min" },
  counted("ready", "Waiting"),
  flow("in", "In / s"),
  flow("out", "Out / s"),
  counted("leased", "Leased"),
  counted("delayed", "Delayed"),
  counted("dead", "Dead"),
  counted("comet", "Comet"),
  counted("sse", "SSE"),
  counted("websocket", "WS", "WebSocket"),
  counted("consumers", "Consumers", undefined, (queue) => queue.consumers),
  counted("waiters", "Polls", "Clients in a long poll"),
  {
    name: "oldest", heading: "Oldest", key: (queue) => (queue.row.oldest === null ? -1 : queue.model.now - queue.row.oldest),
    show: (queue) => (queue.row.oldest === null ? "–" : age(queue.model.now - queue.row.oldest)), isUsed: (whole) => whole.row.oldest !== null,
  },
  { name: "policy", heading: "Policy", key: (queue) => queue.row.policy, show: (queue) => (queue.row.policy === "broadcast" ? "broadcast" : "round robin") },
];

const CONDITIONS = { paused: "Paused", alone: "No consumers", "": "" };

export function link(name) {
  return `#/q/${encodeURIComponent(name)}`;
}

export class QueueList {
  #model;
  #lastHour;
  #order = [];
  #rows = new Map();
  #sorted = { by: "ready", down: true };
  #filter = () => true;
  #resortedAt = 0;
  #usedAt = new Map();
  #folded = new Set();
  #isPointedAt = false;

  constructor(model, lastHour, onSort) {
    this.#model = model;
    this.#lastHour = lastHour;
    this.onSort = onSort;
    this.heads = new Map(COLUMNS.map((column) => [column.name, this.#head(column)]));
    this.body = h("div", { role: "rowgroup", class: "rows" });
    this.element = h("div", { role: "table", class: "queues", "aria-label": "Queues", "aria-colcount": COLUMNS.length },
      h("div", { role: "rowgroup", class: "heads" }, h("div", { role: "row", class: "queue-row" }, ...this.heads.values())), this.body);
    this.body.addEventListener("keydown", (event) => this.#onKey(event));
    this.body.addEventListener("pointerenter", () => { this.#isPointedAt = true; });
    this.body.addEventListener("pointerleave", () => { this.#isPointedAt = false; });
    const onScroll = () => { if (this.body.isConnected) this.#render(); };
    window.addEventListener("scroll", onScroll, { passive: true });
    window.addEventListener("resize", onScroll);
    this.sort(this.#sorted.by, true);
  }

  #head(column) {
    const title = column.title ?? "";
    const inside = column.key
      ? h("button", { type: "button", class: "head", title, on: { click: () => this.sort(column.name) } }, column.heading) : column.heading;
    const beside = column.name === "name" ? this.held = h("span", { class: "held", "aria-hidden": "true" }) : "";
    return h("div", { role: "columnheader", class: `c-${column.name}`, "aria-colindex": COLUMNS.indexOf(column) + 1 }, inside, beside);
  }

  /** Sorts by a column; reverses the order if the list is already sorted by it. Numbers start with the largest. */
  sort(by, down) {
    const isSame = this.#sorted.by === by;
    this.#sorted = { by, down: down ?? (isSame ? !this.#sorted.down : by !== "name" && by !== "policy") };
    for (const [name, head] of this.heads) {
      const direction = name === this.#sorted.by ? (this.#sorted.down ? "descending" : "ascending") : null;
      if (direction) head.setAttribute("aria-sort", direction);
      else head.removeAttribute("aria-sort");
    }
    this.onSort(this.#sorted.by);
    this.#fold();
    this.#reorder();
    this.#render();
  }

  filter(isShown) {
    this.#filter = isShown;
    this.#reorder();
    this.#render();
  }

  get shown() {
    return this.#order.length;
  }

  /** Shows the changed model. Rows keep their places for 3 s, and while the pointer or the focus is on the list. */
  update() {
    const by = this.#heldBy();
    if (!this.#order.length || (!by && performance.now() - this.#resortedAt > RESORT_MS)) this.#reorder();
    else this.#keepOrder();
    setText(this.held, by && !this.#isInOrder() ? `Rows keep their places under the ${by}` : "");
    this.#fold();
    this.#render();
  }

  /** Hides the columns without a value in any row. The others keep their numbers for screen readers. */
  #fold() {
    if (!this.#model.known) return;
    const now = performance.now();
    for (const { name, isUsed } of COLUMNS) {
      const head = this.heads.get(name);
      if (!isUsed || isUsed(this.#model.whole) || name === this.#sorted.by || head.contains(document.activeElement)) this.#usedAt.set(name, now);
      head.hidden = !(now - this.#usedAt.get(name) < FOLD_MS);
      if (head.hidden) this.#folded.add(name);
      else this.#folded.delete(name);
    }
  }

  /** What holds the rows in their places. After a touch, nothing points at the list, though it stays ":hover". */
  #heldBy() {
    if (this.body.contains(document.activeElement)) return "focus";
    return this.#isPointedAt && this.body.matches(":hover") ? "pointer" : "";
  }

  #isInOrder() {
    const { by, down } = this.#sorted;
    const { key } = COLUMNS.find((column) => column.name === by);
    const keys = this.#order.map((name) => key(this.#model.queues.get(name)));
    return keys.every((each, i) => !i || (down ? keys[i - 1] >= each : keys[i - 1] <= each));
  }

  #reorder() {
    this.#resortedAt = performance.now();
    const { by, down } = this.#sorted;
    const { key } = COLUMNS.find((column) => column.name === by);
    const keyed = [...this.#model.queues.values()].filter(this.#filter).map((queue) => [key(queue), queue]);
    const sign = down ? -1 : 1;
    keyed.sort(([a, x], [b, y]) => (a < b ? -sign : a > b ? sign : x.row.name < y.row.name ? -1 : 1));
    this.#order = keyed.map(([, queue]) => queue.row.name);
    setText(this.held, "");
  }

  /** Appends new queues and removes deleted ones. */
  #keepOrder() {
    const known = new Set(this.#order);
    const added = [...this.#model.queues.values()].filter((queue) => !known.has(queue.row.name) && this.#filter(queue));
    this.#order = this.#order.filter((name) => this.#model.queues.has(name));
    this.#order.push(...added.map((queue) => queue.row.name));
  }

  #height() {
    return parseFloat(getComputedStyle(this.body).getPropertyValue("--row")) || 34;
  }

  #render() {
    const height = this.#height();
    const top = -this.body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / height) - ROWS_BEYOND_SIGHT);
    const last = Math.min(this.#order.length, Math.ceil((top + window.innerHeight) / height) + ROWS_BEYOND_SIGHT);
    this.body.style.height = `${this.#order.length * height}px`;
    this.element.setAttribute("aria-rowcount", this.#order.length + 1);
    const inSight = new Set(this.#order.slice(first, last));
    for (const [name, row] of this.#rows) {
      if (!inSight.has(name)) {
        row.element.remove();
        this.#rows.delete(name);
      }
    }
    for (let i = first; i < last; i += 1) this.#renderRow(this.#order[i], i, height);
  }

  #renderRow(name, i, height) {
    const queue = this.#model.queues.get(name);
    let row = this.#rows.get(name);
    if (!row) {
      row = this.#makeRow(name);
      this.#rows.set(name, row);
    }
    if (row.top !== i * height) {
      row.top = i * height;
      row.element.style.transform = `translateY(${row.top}px)`;
      row.element.setAttribute("aria-rowindex", i + 2);
      // The order in the document must be that on the screen, for keyboard and screen reader users.
      const after = this.#rows.get(this.#order[i - 1])?.element;
      const next = after ? after.nextSibling : this.body.firstChild;
      if (next !== row.element && !row.element.contains(document.activeElement)) this.body.insertBefore(row.element, next);
      else if (!row.element.parentNode) this.body.append(row.element);
    }
    for (const [column, cell] of row.cells) {
      const text = column.show(queue);
      setText(cell, text);
      setClass(cell, "none", text === "0" || text === "–");
      setClass(cell, "sorted", column.name === this.#sorted.by);
      if (cell.hidden !== this.#folded.has(column.name)) cell.hidden = !cell.hidden;
    }
    const share = `${Math.min(100, Math.round(Math.log10(queue.row.ready + 1) * 16))}%`;
    if (row.share !== share) row.element.style.setProperty("--share", row.share = share);
    const { condition } = queue;
    if (row.condition.dataset.condition !== condition) {
      row.condition.dataset.condition = condition;
      row.condition.title = row.condition.firstChild.textContent = CONDITIONS[condition];
    }
    setClass(row.cells.get(COLUMNS.find((column) => column.name === "dead")), "some-dead", queue.row.dead > 0);
    drawSpark(row.spark, queue, this.#model.now, this.#lastHour);
  }

  #makeRow(name) {
    const condition = h("span", { class: "condition" }, h("span"));
    const trend = spark();
    const cells = new Map();
    const made = COLUMNS.map((column, i) => {
      const properties = { role: "cell", class: `c-${column.name}`, "aria-colindex": i + 1 };
      if (column.name === "name") return h("div", properties, condition, h("a", { href: link(name), title: name }, ...nameNodes(name)));
      if (column.name === "trend") return h("div", properties, trend);
      const cell = h("div", { ...properties, data: { label: column.heading } });
      cells.set(column, cell);
      return cell;
    });
    return { element: h("div", { role: "row", class: "queue-row", data: { queue: name } }, ...made), cells, condition, spark: trend, top: -1 };
  }

  /** Arrow keys move through all rows, including those out of sight. */
  #onKey(event) {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, Home: -Infinity, End: Infinity }[event.key];
    const here = event.target.closest("[data-queue]");
    if (!step || !here || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const place = this.#order.indexOf(here.dataset.queue) + step;
    this.focus(Math.max(0, Math.min(this.#order.length - 1, place)));
  }

  /** Focuses the row at this place, and scrolls to it if it is out of sight. */
  focus(place) {
    const name = this.#order[place];
    if (name === undefined) return;
    const height = this.#height();
    const top = this.body.getBoundingClientRect().top + window.scrollY + place * height;
    if (top < window.scrollY + 90) window.scrollTo(0, top - 90);
    else if (top + height > window.scrollY + window.innerHeight) window.scrollTo(0, top + height - window.innerHeight + 8);
    this.#render();
    this.#rows.get(name)?.element.querySelector("a").focus({ preventScroll: true });
  }
}
