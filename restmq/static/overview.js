// The overview: figures and a chart of all queues, and the list of queues.

import { SERVER } from "./api.js";
import { Chart } from "./chart.js";
import { h, setClass, setText } from "./dom.js";
import { age, count, plural, rate } from "./format.js";
import { COLUMNS, QueueList, link } from "./list.js";

/**
 * A row of labelled figures. `acts` has, by name, what shows the things that a figure counts. `update` takes each figure's
 * text by name, or `[text, small text beside it]`.
 */
export class Figures {
  constructor(names, acts) {
    this.values = {};
    this.element = h("dl", { class: "figures" }, ...Object.entries(names).map(([name, label]) => {
      this.values[name] = h("dd", {}, h("span"), h("small"));
      return h("div", { class: `figure f-${name}` }, h("dt", {}, acts[name] ? h("button", { type: "button", class: "head to-list", on: { click: acts[name] } }, label) : label), this.values[name]);
    }));
    this.clear();
  }

  clear() {
    this.update(Object.fromEntries(Object.keys(this.values).map((name) => [name, "–"])));
  }

  update(figures) {
    for (const [name, each] of Object.entries(figures)) {
      const [text, beside = ""] = [each].flat();
      const [value, small] = this.values[name].children;
      setText(value, text);
      setText(small, beside);
      setClass(this.values[name], "none", (text === "0" || text === "–") && !beside);
    }
  }
}

/** The number of connected consumers and, beside it, of long polls. */
export function consumers(queue) {
  const { waiters } = queue.row;
  return [count(queue.consumers), waiters ? `+ ${plural(waiters, "poll")}` : ""];
}

const FILTERS = {
  all: ["All", () => true],
  waiting: ["With messages", (queue) => queue.row.ready > 0],
  leased: ["Leased", (queue) => queue.row.leased > 0],
  attended: ["Consumers", (queue) => !queue.hasNoConsumers],
  alone: ["No consumers", (queue) => queue.condition === "alone"],
  paused: ["Paused", (queue) => queue.condition === "paused"],
  dead: ["Dead letters", (queue) => queue.row.dead > 0],
};

export class Overview {
  #model;
  #wanted = "all";

  constructor(model) {
    this.#model = model;
    this.figures = new Figures({
      queues: "Queues", ready: "Waiting", in: "In / s", out: "Out / s", leased: "Leased", dead: "Dead", consumers: "Consumers", oldest: "Oldest",
    }, Object.fromEntries(Object.entries({ queues: "all", ready: "waiting", leased: "leased", dead: "dead", consumers: "attended" }).map(([name, filter]) => [name, () => this.#jump(filter)])));
    this.chart = new Chart("All queues", "/dashboard/samples");
    this.search = h("input", { type: "search", placeholder: "Find a queue", "aria-label": "Find a queue", "aria-keyshortcuts": "/", spellcheck: false,
      autocomplete: "off", maxLength: 255, on: { input: () => this.#refilter(), keydown: (event) => this.#onSearchKey(event) } });
    this.filters = Object.entries(FILTERS).map(([name, [label]]) => h("button", {
      type: "button", class: "filter", "aria-pressed": String(name === "all"), data: { filter: name, condition: name }, on: { click: () => this.#choose(name) } }, label));
    this.sort = h("select", { id: "sort", on: { change: () => this.list.sort(this.sort.value) } },
      ...COLUMNS.filter((column) => column.key).map((column) => h("option", { value: column.name }, column.title ?? column.heading)));
    this.list = new QueueList(model, this.chart.lastHour, (by) => { this.sort.value = by; });
    this.hint = h("div", { class: "hint" });
    this.element = h("div", { class: "overview" }, h("h1", { class: "unseen" }, "Queues"), this.figures.element, this.chart.figure,
      h("div", { class: "tools", role: "search" }, this.search, h("div", { class: "filters", role: "group", "aria-label": "Show" }, ...this.filters), h("label", { class: "phone-only" }, "Sort by", this.sort)),
      this.list.element, this.scale = h("p", { class: "log-scale", hidden: true }, "The bars under Waiting are logarithmic: each further piece stands for ten times as many messages."), this.hint);
    this.update();
  }

  title = "RestMQ";
  scrolledTo = 0;

  /** Nothing to load: the feed has all the data. */
  resume() {}

  close() {
    this.scrolledTo = window.scrollY;
  }

  focusSearch() {
    this.search.focus();
    this.search.select();
  }

  update() {
    const { whole, queues } = this.#model;
    if (!this.#model.known) {
      this.figures.clear();
      this.chart.show(whole, 0);
      this.list.update();
      this.#countFilters();
      this.list.element.hidden = true;
      this.hint.dataset.text = this.hint.textContent = this.#model.refused || "Waiting for data from the server…";
      return;
    }
    const { row } = whole;
    this.figures.update({
      queues: count(queues.size), ready: count(row.ready), in: rate(whole.rate("in")), out: rate(whole.rate("out")), leased: count(row.leased),
      dead: count(row.dead), consumers: consumers(whole), oldest: row.oldest === null ? "–" : age(this.#model.now - row.oldest),
    });
    this.chart.show(whole, this.#model.now);
    this.#countFilters();
    this.list.update();
    this.scale.hidden = !row.ready;
    this.#explain();
  }

  #countFilters() {
    const all = [...this.#model.queues.values()];
    for (const button of this.filters) {
      const [label, isShown] = FILTERS[button.dataset.filter];
      setText(button, this.#model.known ? `${label} ${count(all.filter(isShown).length)}` : label);
    }
  }

  #choose(name) {
    this.#wanted = name;
    for (const button of this.filters) button.setAttribute("aria-pressed", String(button.dataset.filter === name));
    this.#refilter();
  }

  /** Shows the queues that a figure counts. */
  #jump(filter) {
    this.search.value = "";
    this.#choose(filter);
    this.search.parentElement.scrollIntoView({ block: "nearest" });
  }

  #refilter() {
    const text = this.search.value.toLowerCase();
    const isWanted = FILTERS[this.#wanted][1];
    this.list.filter((queue) => isWanted(queue) && queue.row.name.toLowerCase().includes(text));
    this.#explain();
  }

  #onSearchKey(event) {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      this.list.focus(0);
    } else if (event.key === "Enter" && this.search.value) {
      location.hash = link(this.search.value);
    } else if (event.key === "Escape") {
      this.search.value = "";
      this.#refilter();
    }
  }

  /** Explains an empty list, and says if there are more queues than the list shows. */
  #explain() {
    const name = this.search.value;
    const lines = [];
    this.list.element.hidden = !this.#model.queues.size;
    if (name && !this.#model.queues.has(name)) {
      lines.push(h("p", {}, "No queue in the list has exactly this name. ", h("a", { href: link(name) }, `Open “${name}”`), " anyway."));
    } else if (!this.#model.queues.size) {
      lines.push(h("p", { class: "empty" }, "There are no queues yet. Publish a message to create one:"),
        h("pre", { tabIndex: 0 }, `curl -d value=hello ${SERVER}/q/test`),
        h("p", {}, "Or type a name above, press Enter, and publish a message there."));
    } else if (!this.list.shown) lines.push(h("p", {}, "No queue matches."));
    if (this.#model.missing) {
      lines.push(h("p", {}, `${plural(this.#model.missing, "node")} of the Redis Cluster did not answer. The queues there are not shown.`));
    }
    if (this.#model.leftOut) {
      lines.push(h("p", {}, `${plural(this.#model.leftOut, "more queue")} not shown. The list holds the first ones by name; --max-watched-queues sets the limit.`));
    }
    const text = lines.map((line) => line.textContent).join("\n");
    if (this.hint.dataset.text === text) return;  // replacing a link would break a click on it
    this.hint.dataset.text = text;
    this.hint.replaceChildren(...lines);
  }
}
