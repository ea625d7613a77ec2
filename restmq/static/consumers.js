// The queue's consumers and long polls, on all servers.

import { getJson, path } from "./api.js";
import { h, setText } from "./dom.js";
import { count, duration, plural } from "./format.js";

const RELOAD_MS = 2000;
// A long poll ends soon, and another one takes its place.
const POLLS_RELOAD_MS = 5000;
const NAMES = { comet: "Comet", sse: "SSE", websocket: "WebSocket" };

export class Consumers {
  #name;
  #queue;
  #may;
  #loadedAt = -Infinity;
  #loadedFor = "";
  #loading = false;

  constructor(name, queue, may) {
    this.#name = name;
    this.#queue = queue;
    this.#may = may;
    this.sums = h("p", { class: "aside" });
    this.rows = h("tbody");
    this.head = h("tr");
    this.table = h("table", { hidden: true }, h("thead", {}, this.head), this.rows);
    this.note = h("p", { class: "nothing" });
    this.element = h("section", { class: "panel", "aria-labelledby": "consumers-title" },
      h("header", {}, h("h2", { id: "consumers-title" }, "Consumers"), this.sums), this.table, this.note);
  }

  update() {
    const queue = this.#queue();
    const { row } = queue;
    const listening = Object.keys(NAMES).filter((transport) => row[transport]).map((transport) => `${count(row[transport])} ${NAMES[transport]}`);
    if (row.waiters) listening.push(plural(row.waiters, "long poll"));
    setText(this.sums, listening.join(", "));
    const state = [row.comet, row.sse, row.websocket, row.waiters].join();
    for (const cell of this.rows.querySelectorAll("[data-since]")) setText(cell, duration(performance.now() - Number(cell.dataset.since)));
    if (!listening.length || !this.#may().inspect) {
      this.#loadedFor = "";
      this.table.hidden = true;
      setText(this.note, listening.length ? "" : queue.hasNoConsumers ? "No consumers." : this.#between(row));
    } else {
      const waited = performance.now() - this.#loadedAt;
      const isDue = state !== this.#loadedFor ? waited > RELOAD_MS : row.waiters && waited > POLLS_RELOAD_MS;
      if (isDue && !this.#loading) this.#load(state);
    }
  }

  /** What is known of clients that poll, between two polls. */
  #between({ leased }) {
    return `No client is connected now, but ${leased ? `${plural(leased, "message")} ${leased === 1 ? "is" : "are"} leased.` : "one took messages in the last minute."}`;
  }

  async #load(state) {
    this.#loading = true;
    try {
      this.#show(await getJson(path("/dashboard/consumers/", this.#name)));
      this.#loadedFor = state;
    } catch (error) {
      setText(this.note, error.message);
    } finally {
      this.#loading = false;
      this.#loadedAt = performance.now();
    }
  }

  #show({ total, waiters, consumers, polls }) {
    const shown = [...consumers, ...polls];
    const several = new Set(shown.map((client) => client.server)).size > 1;
    const heads = ["Transport", "Address", "Unacked", "Connected for", ...(several ? ["Server"] : [])];
    this.head.replaceChildren(...heads.map((head) => h("th", { scope: "col" }, head)));
    this.rows.replaceChildren(...shown.map((client) => h("tr", {},
      h("td", {}, NAMES[client.transport] ?? "Long poll"), h("td", { class: "mono" }, client.address),
      h("td", { class: "mono" }, client.lease_seconds ? count(client.held) : "–"),
      h("td", { class: "mono", data: { since: performance.now() - client.age_seconds * 1000 } }, duration(client.age_seconds * 1000)),
      ...(several ? [h("td", { class: "mono" }, client.server)] : []))));
    this.table.hidden = !shown.length;
    const more = total + waiters - shown.length;
    setText(this.note, more > 0 ? `And ${count(more)} more.` : "");
  }
}
