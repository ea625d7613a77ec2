// Lists messages by state: next, newest, leased, delayed, dead. Listing takes no message and counts no peek.

import { getJson, path, post, request } from "./api.js";
import { confirmButton, h, notify, setText } from "./dom.js";
import { clock, count, duration, plural, size } from "./format.js";
import { isJson, preview, renderValue } from "./json.js";

const SHOWN_AT_FIRST = 20;
const SHOWN_AT_MOST = 100;
const RELOAD_MS = 1500;

const PLACES = {
  next: { label: "Next", of: (row) => row.ready, none: "No message waits." },
  newest: { label: "Newest", of: (row) => row.ready, none: "No message waits." },
  leased: { label: "Leased", of: (row) => row.leased, none: "No message is leased." },
  delayed: { label: "Delayed", of: (row) => row.delayed, none: "No message is delayed." },
  dead: { label: "Dead", of: (row) => row.dead, none: "No dead letters." },
};

export class Messages {
  #name;
  #queue;
  #may;
  #now;
  #place = "next";
  #wanted = SHOWN_AT_FIRST;
  #first = 0;
  #loadedAt = -Infinity;
  #loadedFor = "";
  #loading = false;

  constructor(name, queue, may, now) {
    this.#name = name;
    this.#queue = queue;
    this.#may = may;
    this.#now = now;
    this.tabs = Object.keys(PLACES).map((place) => h("button", { type: "button", role: "tab", id: `tab-${place}`, "aria-controls": "messages",
      on: { click: () => this.#choose(place) } }, PLACES[place].label));
    this.list = h("ol", { class: "messages" });
    this.more = h("button", { type: "button", hidden: true, on: { click: () => { this.#wanted = SHOWN_AT_MOST; this.#load(); } } }, "Show more");
    this.pages = h("div", { class: "acts pages", hidden: true },
      this.before = h("button", { type: "button", on: { click: () => this.#turn(-SHOWN_AT_MOST) } }, "Previous page"),
      this.which = h("span", { class: "aside", role: "status" }),
      this.after = h("button", { type: "button", on: { click: () => this.#turn(SHOWN_AT_MOST) } }, "Next page"));
    this.refresh = h("button", { type: "button", class: "plain", on: { click: () => this.#load() } }, "Refresh");
    this.deadActs = h("div", { class: "acts dead-acts", hidden: true },
      this.redriveAll = confirmButton("Redrive all", () => `Redrive ${plural(this.#queue().row.dead, "dead letter")}?`, () => this.#redrive()),
      this.dropAll = confirmButton("Drop all", () => `Drop ${plural(this.#queue().row.dead, "dead letter")} for good?`, () => this.#drop()));
    this.element = h("section", { class: "panel messages-panel", "aria-labelledby": "messages-title" },
      h("header", {}, h("h2", { id: "messages-title" }, "Messages"), h("p", { class: "aside" }, "Browsing takes no message."), this.refresh),
      h("div", { role: "tablist", class: "tabs", "aria-label": "Messages", on: { keydown: (event) => this.#onKey(event) } }, ...this.tabs),
      this.box = h("div", { role: "tabpanel", id: "messages", tabIndex: 0 }, this.deadActs, this.list, this.more, this.pages));
    this.#markTabs();
  }

  #choose(place) {
    this.#place = place;
    this.#wanted = SHOWN_AT_FIRST;
    this.#first = 0;
    this.list.replaceChildren();
    this.#markTabs();
    this.#load();
  }

  /** Moves the list by this number of messages. */
  async #turn(places) {
    this.#first = Math.max(0, this.#first + places);
    await this.#load();
    this.box.scrollIntoView({ block: "nearest" });
  }

  #onKey(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const places = Object.keys(PLACES);
    const to = (places.indexOf(this.#place) + step + places.length) % places.length;
    this.#choose(places[to]);
    this.tabs[to].focus();
  }

  #markTabs() {
    Object.keys(PLACES).forEach((place, i) => {
      const isChosen = place === this.#place;
      this.tabs[i].setAttribute("aria-selected", String(isChosen));
      this.tabs[i].tabIndex = isChosen ? 0 : -1;
      if (isChosen) this.box.setAttribute("aria-labelledby", this.tabs[i].id);
    });
  }

  /** Reloads the list if the queue has changed, but not while the user reads a message. */
  update() {
    const { row } = this.#queue();
    const may = this.#may();
    Object.entries(PLACES).forEach(([place, { label, of }], i) => setText(this.tabs[i], place === "newest" ? label : `${label} ${count(of(row))}`));
    this.deadActs.hidden = this.#place !== "dead" || !row.dead;
    this.redriveAll.hidden = !may.configure;
    this.dropAll.hidden = !may.purge;
    for (const time of this.list.querySelectorAll("time[data-due]")) setText(time, this.#due(Number(time.dataset.due)));
    const isRead = this.list.querySelector("details[open]") || this.list.contains(document.activeElement);
    const isOld = this.#state() !== this.#loadedFor;
    this.refresh.classList.toggle("fresh", Boolean(isRead) && isOld);
    if (!isRead && isOld && performance.now() - this.#loadedAt > RELOAD_MS) this.#load();
  }

  /** The state that the list shows; a change means that the list is outdated. */
  #state() {
    const { row } = this.#queue();
    return [this.#place, PLACES[this.#place].of(row), this.#place === "next" || this.#place === "newest" ? `${row.in} ${row.out}` : ""].join();
  }

  async #load() {
    if (this.#loading) return;
    this.#loading = true;
    const place = this.#place;
    const first = this.#first;
    const state = this.#state();
    try {
      const answer = await getJson(path("/j/", this.#name, { list: place, first, count: this.#wanted }));
      if (place === this.#place) this.#show(answer);
      this.#loadedFor = state;
    } catch (error) {
      if (place === this.#place) this.list.replaceChildren(h("li", { class: "nothing" }, error.message));
    } finally {
      this.#loadedAt = performance.now();
      this.#loading = false;
      if (place !== this.#place || first !== this.#first) this.#load();
    }
  }

  #show({ messages, total }) {
    if (!messages.length && this.#first) this.#first = Math.max(0, Math.ceil(total / SHOWN_AT_MOST) - 1) * SHOWN_AT_MOST;  // those messages are gone
    this.more.hidden = total <= messages.length || this.#wanted === SHOWN_AT_MOST;
    this.pages.hidden = total <= SHOWN_AT_MOST || this.#wanted !== SHOWN_AT_MOST;
    this.before.disabled = this.#first === 0;
    this.after.disabled = this.#first + messages.length >= total;
    setText(this.which, `${count(this.#first + 1)} to ${count(this.#first + messages.length)} of ${count(total)}`);
    if (messages.length) this.list.replaceChildren(...messages.map((message) => this.#item(message)));
    else this.list.replaceChildren(h("li", { class: "nothing" }, PLACES[this.#place].none));
  }

  #item(message) {
    const body = h("div", { class: "message-body" });
    const details = h("details", { on: { toggle: () => { if (details.open && !body.childNodes.length) this.#open(body, message); } } },
      h("summary", {}, h("code", { class: "key" }, message.key.slice(message.key.lastIndexOf(":") + 1)),
        h("span", { class: "preview" }, preview(message.value, message.encoding)),
        h("span", { class: "facts" }, ...this.#facts(message))), body);
    return h("li", { data: { key: message.key } }, details);
  }

  #facts(message) {
    const facts = [];
    if (message.due) facts.push(h("time", { data: { due: message.due } }, this.#due(message.due)));
    if (message.died) facts.push(h("span", {}, `died ${clock(message.died)}`));
    if (message.reason) facts.push(h("span", { class: "reason", title: message.reason }, message.reason));
    if (message.count) facts.push(h("span", {}, plural(message.count, "delivery", "deliveries")));
    facts.push(h("span", { class: "size" }, size(message.size)));
    return facts;
  }

  #due(at) {
    return at > this.#now() ? `${this.#place === "leased" ? "lease ends" : "ready"} in ${duration(at - this.#now())}` : "due now";
  }

  #open(body, message) {
    const kind = message.encoding ? "bytes" : isJson(message.value) ? "JSON" : "text";
    const acts = h("div", { class: "acts" }, h("span", { class: "aside" }, `${message.key} · ${kind} · ${size(message.size)}${message.looks ? ` · peeked at ${plural(message.looks, "time")}` : ""}`));
    if (message.cut) acts.append(h("button", { type: "button", on: { click: () => this.#whole(body, message) } }, "Load all"));
    if (!message.encoding) acts.append(h("button", { type: "button", on: { click: () => this.#copy(message.value) } }, "Copy"));
    const may = this.#may();
    if (this.#place === "dead" && may.configure) acts.append(h("button", { type: "button", on: { click: () => this.#redrive(message.key) } }, "Redrive"));
    if (this.#place === "dead" && may.purge) acts.append(confirmButton("Drop", () => "Drop for good?", () => this.#drop(message.key)));
    const sent = Object.entries(sentWith(message)).map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "mono" }, value)));
    if (sent.length) acts.append(h("table", { class: "sent-with" }, h("tbody", {}, ...sent)));
    body.replaceChildren(acts, ...reasons(message).map((text) => h("p", { class: "note reason" }, text)), renderValue(message.value, message.encoding, message.cut));
  }

  async #whole(body, message) {
    try {
      const { value, encoding } = await getJson(`/m/${encodeURIComponent(message.key)}`);
      this.#open(body, { ...message, value, encoding, cut: false });
    } catch (error) {
      notify(error.message, true);
    }
  }

  async #copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      notify("Copied.");
    } catch {
      notify("The browser blocked copying.", true);
    }
  }

  #redrive(key) {
    return this.#act(() => post(path("/d/", this.#name), key ? { key } : {}), "redriven", "back in the queue");
  }

  #drop(key) {
    return this.#act(() => request(path("/d/", this.#name, { key }), { method: "DELETE" }), "dropped", "dropped");
  }

  async #act(ask, counted, outcome) {
    try {
      const answer = await (await ask()).json();
      notify(`${plural(answer[counted], "message")} ${outcome}.`);
    } catch (error) {
      notify(error.message, true);
    }
    this.#load();
  }
}

/** What the producer sent with a message: its content type, its headers, and its attributes with their types. */
function sentWith({ content_type: type, headers = {}, attributes = {} }) {
  const typed = Object.entries(attributes).map(([name, one]) => [name, one.type === "String" ? one.value : `${one.value} (${one.type})`]);
  return { ...(type ? { "content-type": type } : {}), ...headers, ...Object.fromEntries(typed) };
}

/** Why deliveries of a message failed, here and in the queue where it was a dead letter. */
function reasons({ reason, failed, dead_letter: origin }) {
  const told = [];
  if (reason) told.push(`Failed ${clock(failed)}: ${reason}`);
  if (origin) told.push(`Was the dead letter ${origin.key}${origin.reason ? `, failed ${clock(origin.failed)}: ${origin.reason}` : ""}`);
  return told;
}
