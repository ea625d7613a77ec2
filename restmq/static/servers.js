// The page about the servers: those of RestMQ with their workers, and those of Redis.

import { getJson } from "./api.js";
import { h, setClass, setText } from "./dom.js";
import { count, duration, plural, size, stamp } from "./format.js";

const RELOAD_MS = 5000;
const ALMOST_FULL = 0.9;
const KINDS = { redis: "one server", sentinel: "by Sentinel", cluster: "cluster" };

/** A table of objects with the same members: its headings. Members that are empty in all objects are left out. */
class Table {
  #shape = "";

  constructor(label) {
    this.head = h("tr");
    this.body = h("tbody");
    this.element = h("table", { class: "facts-table", "aria-label": label }, h("thead", {}, this.head), this.body);
  }

  show(objects) {
    const heads = Object.keys(objects[0] ?? {}).filter((head) => objects.some((each) => each[head]));
    const shape = [objects.length, ...heads].join("\n");
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.head.replaceChildren(...heads.map((head) => h("th", { scope: "col" }, head)));
      this.body.replaceChildren(...objects.map(() => h("tr", {}, ...heads.map((head) => h("td", { data: { label: head } })))));
    }
    objects.forEach((each, i) => heads.forEach((head, j) => {
      const cell = this.body.rows[i].cells[j];
      setText(cell, each[head] ?? "");
      setClass(cell, "wrong", head === "State" && each[head] !== "up");
    }));
  }
}

export class ServersPage {
  #model;
  #loadedAt = -Infinity;
  #loading = false;
  #isRefused = false;

  constructor(model) {
    this.#model = model;
    this.title = "Servers – RestMQ";
    this.notes = h("div", { class: "notes", role: "status" });
    this.servers = new Table("RestMQ");
    this.redis = new Table("Redis");
    this.kind = h("p", { class: "aside" });
    this.problem = h("p", { class: "hint" }, "Waiting for data from the server…");
    this.panels = h("div", { class: "column", hidden: true },
      h("section", { class: "panel" }, h("header", {}, h("h2", {}, "RestMQ")), this.servers.element),
      h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Redis"), this.kind), this.redis.element));
    this.element = h("div", { class: "servers-page" },
      h("div", { class: "queue-head" }, h("a", { href: "#/", class: "back" }, "Dashboard"), h("h1", {}, "Servers")), this.problem, this.notes, this.panels);
  }

  /** Called after each (re)connection, perhaps with new credentials. */
  resume() {
    this.#isRefused = false;
    this.#load();
  }

  close() {}

  update() {
    if (this.#model.refused) this.#refuse(this.#model.refused);
    else if (!this.#isRefused && performance.now() - this.#loadedAt > RELOAD_MS) this.#load();
  }

  async #load() {
    if (this.#loading) return;
    this.#loading = true;
    try {
      this.#show(await getJson("/servers"));
    } catch (error) {
      this.#isRefused = error.status >= 400 && error.status < 500;
      if (this.#isRefused) this.#refuse(error.message);
      else this.#say(error.message);
    } finally {
      this.#loading = false;
      this.#loadedAt = performance.now();
    }
  }

  #say(text) {
    setText(this.problem, text);
    this.problem.hidden = !text;
  }

  /** Shows nothing more to a user who lost access. */
  #refuse(why) {
    this.#say(why);
    this.panels.hidden = true;
    this.notes.replaceChildren();
  }

  #show({ servers, missing, redis }) {
    this.#say("");
    this.panels.hidden = false;
    setText(this.kind, [KINDS[redis.kind], redis.name].filter(Boolean).join(", "));
    this.servers.show(servers.flatMap(rowsOf));
    this.redis.show(redis.nodes.map(rowOfNode));
    const notes = [...troubleOf(missing, redis), ...redis.nodes.flatMap((node) => risksOf(node, redis.nodes.length > 1 ? `Redis at ${node.address}` : "Redis"))];
    if (this.notes.dataset.text === notes.join("\n")) return;
    this.notes.dataset.text = notes.join("\n");
    this.notes.replaceChildren(...notes.map((note) => h("p", { class: "note warn" }, note)));
  }
}

/** The rows of a server: one for each worker. */
function rowsOf({ host, version, listens_on: urls, workers }) {
  return workers.map((worker) => ({
    Host: host,
    Address: urls.join(" "),
    Worker: workers.length > 1 ? String(worker.worker) : "",
    Process: String(worker.pid),
    Version: version,
    "Up for": duration(worker.uptime_seconds * 1000),
    Connections: count(worker.connections),
    Consumers: count(worker.consumers),
    Polls: count(worker.waiters),
    Taps: count(worker.taps),
  }));
}

function rowOfNode(node) {
  const { memory_bytes: memory, memory_max_bytes: limit, uptime_seconds: uptime, lag_seconds: lag } = node;
  return {
    Address: node.address,
    Role: node.role === "replica" && node.primary ? `replica of ${node.primary}` : node.role,
    State: node.problem ? `${node.state}: ${node.problem}` : node.state,
    Version: node.version,
    "Up for": uptime === undefined ? "" : duration(uptime * 1000),
    Memory: memory === undefined ? "" : limit ? `${size(memory)} of ${size(limit)}` : `${size(memory)}, no limit`,
    "When full": node.eviction_policy,
    "On disk": persistence(node),
    Clients: node.clients === undefined ? "" : `${count(node.clients)} of ${count(node.clients_max)}`,
    Slots: node.slots ? count(node.slots) : "",
    Lag: lag === undefined ? "" : `${lag} s`,
  };
}

function persistence({ append_only_file: appends, saved }) {
  return [appends === undefined ? "" : appends ? "append-only file" : "no append-only file", saved ? `snapshot ${stamp(saved)}` : ""].filter(Boolean).join(", ");
}

/** What is known to be missing, and what Redis suffers from beside what its nodes say. */
function troubleOf(missing, { problem, nodes }) {
  const notes = [];
  if (missing === null) notes.push("Redis does not answer, so the other servers cannot be asked. Only the one that shows this page is listed.");
  if (missing) notes.push(`${plural(missing, "RestMQ process", "RestMQ processes")} did not answer in time.`);
  if (problem && nodes.every((node) => node.problem !== problem)) notes.push(`Redis: ${problem}`);
  return notes;
}

/** The states and settings of a node by which messages may get lost. */
function risksOf(node, name) {
  const risks = (node.failed_writes ?? []).map((what) => `${name}: ${what} failed. See its log.`);
  if (node.memory_max_bytes && node.eviction_policy && node.eviction_policy !== "noeviction") {
    risks.push(`${name} drops messages when its memory is full (${node.eviction_policy}). Set maxmemory-policy to noeviction.`);
  }
  if (node.memory_max_bytes && node.memory_bytes > ALMOST_FULL * node.memory_max_bytes && node.eviction_policy === "noeviction") {
    risks.push(`${name} is almost full. While it is full, new messages are refused.`);
  }
  if (node.evicted_keys) risks.push(`${name} has dropped ${plural(node.evicted_keys, "key")}, because its memory was full.`);
  return risks;
}
