// What SQS clients have set for a queue, and the groups of a FIFO queue. Hidden for other queues.

import { getJson, path } from "./api.js";
import { h, setText } from "./dom.js";
import { count, plural } from "./format.js";

const RELOAD_MS = 2000;

export class Sqs {
  #name;
  #queue;
  #loadedAt = -Infinity;
  #loadedFor = "";
  #loading = false;
  #hasGroups = false;

  constructor(name, queue) {
    this.#name = name;
    this.#queue = queue;
    this.sums = h("p", { class: "aside" });
    this.groups = h("tbody");
    this.locked = h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Locked group"), h("th", { scope: "col" }, "Leased"))), this.groups);
    this.rows = h("tbody");
    this.set = h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Attribute or tag"), h("th", { scope: "col" }, "Value"))), this.rows);
    this.element = h("section", { class: "panel", id: "sqs", hidden: true, "aria-labelledby": "sqs-title" },
      h("header", {}, h("h2", { id: "sqs-title" }, "SQS"), this.sums), this.locked, this.set);
  }

  /** Asks again when the numbers of a FIFO queue have changed. */
  update() {
    const { row } = this.#queue();
    const state = [row.ready, row.leased, row.delayed].join();
    if (!this.#hasGroups || this.#loading || state === this.#loadedFor) return;
    if (performance.now() - this.#loadedAt > RELOAD_MS) this.load(state);
  }

  async load(state = "") {
    this.#loading = true;
    try {
      this.#show(await getJson(path("/dashboard/sqs/", this.#name)));
      this.#loadedFor = state;
    } catch {
      this.element.hidden = true;  // also for a client that may not see it
    } finally {
      this.#loading = false;
      this.#loadedAt = performance.now();
    }
  }

  #show({ attributes, tags, groups }) {
    const set = [...Object.entries(attributes), ...Object.entries(tags).map(([name, value]) => [`tag ${name}`, value])];
    this.#hasGroups = Boolean(groups);
    this.element.hidden = !set.length && !groups;
    setText(this.sums, groups ? `${plural(groups.free, "free group")}, ${count(groups.locked)} locked` : "");
    this.locked.hidden = !groups?.shown.length;
    const cells = (name, value) => h("tr", {}, h("td", { class: "mono" }, name), h("td", { class: "mono" }, value));
    this.groups.replaceChildren(...(groups?.shown ?? []).map(({ group, leased }) => cells(group, count(leased))));
    this.set.hidden = !set.length;
    this.rows.replaceChildren(...set.map(([name, value]) => cells(name, value)));
  }
}
