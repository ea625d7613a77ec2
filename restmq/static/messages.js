// Lists messages by state: next, newest, leased, delayed, dead. Listing takes no message and counts no peek.

import { getJson, path, post, request } from "./api.js";
import { confirmButton, h, notify, setText } from "./dom.js";
import { count, duration, plural, size, stamp } from "./format.js";
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
  #messages = [];

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
    this.search = h("input", { type: "search", placeholder: "Find in the shown messages", "aria-label": "Find in the shown messages", spellcheck: false,
      autocomplete: "off", on: { input: () => this.#search() } });
    this.hits = h("span", { class: "aside", role: "status" });
    this.deadActs = h("div", { class: "acts dead-acts", hidden: true },
      this.redriveAll = confirmButton("Redrive all", () => `Redrive ${plural(this.#queue().row.dead, "dead letter")}?`, () => this.#redrive()),
      this.dropAll = confirmButton("Drop all", () => `Drop ${plural(this.#queue().row.dead, "dead letter")} for good?`, () => this.#dropDead()));
    this.element = h("section", { class: "panel messages-panel", "aria-labelledby": "messages-title" },
      h("header", {}, h("h2", { id: "messages-title" }, "Messages"), h("p", { class: "aside" }, "Browsing takes no message."), this.refresh),
      h("div", { role: "tablist", class: "tabs", "aria-label": "Messages", on: { keydown: (event) => this.#onKey(event) } }, ...this.tabs),
      this.box = h("div", { role: "tabpanel", id: "messages", tabIndex: 0 }, h("div", { class: "acts find" }, this.search, this.hits), this.deadActs, this.list, this.more, this.pages));
    this.#markTabs();
  }

  /** Shows this list, where the user sees it. */
  jump(place) {
    this.#choose(place);
    this.element.scrollIntoView({ block: "nearest" });
    this.tabs[Object.keys(PLACES).indexOf(place)].focus({ preventScroll: true });
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

  /** Searches the messages on this page of the list, of which there may be 100. */
  #search() {
    if (this.search.value && this.#wanted < SHOWN_AT_MOST) {
      this.#wanted = SHOWN_AT_MOST;
      this.#load();
    }
    this.#list();
  }

  #list() {
    const messages = this.#messages;
    const text = this.search.value.toLowerCase();
    const hits = text ? messages.filter((message) => textOf(message).includes(text)) : messages;
    setText(this.hits, text ? `${count(hits.length)} of ${plural(messages.length, "message")}` : "");
    if (hits.length) this.list.replaceChildren(...hits.map((message) => this.#item(message)));
    else this.list.replaceChildren(h("li", { class: "nothing" }, messages.length ? "No shown message has this text." : PLACES[this.#place].none));
  }

  #show({ messages, total }) {
    if (!messages.length && this.#first) this.#first = Math.max(0, Math.ceil(total / SHOWN_AT_MOST) - 1) * SHOWN_AT_MOST;  // those messages are gone
    this.more.hidden = total <= messages.length || this.#wanted === SHOWN_AT_MOST;
    this.pages.hidden = total <= SHOWN_AT_MOST || this.#wanted !== SHOWN_AT_MOST;
    this.before.disabled = this.#first === 0;
    this.after.disabled = this.#first + messages.length >= total;
    setText(this.which, `${count(this.#first + 1)} to ${count(this.#first + messages.length)} of ${count(total)}`);
    this.#messages = messages;
    this.#list();
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
    if (message.died) facts.push(h("span", {}, `died ${stamp(message.died)}`));
    else if (message.sent && !message.due) facts.push(h("span", {}, `published ${stamp(message.sent)}`));
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
    acts.append(...this.#actsOn(message));
    body.replaceChildren(acts, ...reasons(message).map((text) => h("p", { class: "note reason" }, text)), known(message),
      renderValue(message.value, message.encoding, message.cut));
  }

  /** The buttons for what the user may do with this message. */
  #actsOn({ key }) {
    const may = this.#may();
    const button = (label, act) => h("button", { type: "button", on: { click: act } }, label);
    const acts = [];
    if (this.#place === "dead" && may.configure) acts.push(button("Redrive", () => this.#redrive({ key })), ...this.#move(key));
    if (this.#place === "delayed" && may.configure) acts.push(button("Promote", () => this.#command({ cmd: "promote", key }, "promoted", "It is ready.", "It was not delayed any more.")));
    if (may.purge) {
      const question = this.#place === "leased" ? "Drop, although a consumer has it?" : "Drop for good?";
      acts.push(confirmButton("Drop", () => question, () => this.#command({ cmd: "del", key }, "deleted", "1 message dropped.", "It was gone already.")));
    }
    return acts;
  }

  /** A field for another queue, and the button that moves a dead letter there. */
  #move(key) {
    const to = h("input", { "aria-label": "Queue to move it to", placeholder: "another queue", spellcheck: false, autocomplete: "off", maxLength: 255, required: true });
    return [h("form", { class: "acts", on: { submit: (event) => { event.preventDefault(); this.#redrive({ key, to: to.value }); } } },
      h("button", { type: "submit" }, "Move to"), to)];
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

  #redrive({ key, to } = {}) {
    const fields = { ...(key && { key }), ...(to && { to }) };
    return this.#act(() => post(path("/d/", this.#name), fields), ({ redriven }) => `${plural(redriven, "message")} ${to ? `moved to ${to}` : "back in the queue"}.`);
  }

  #dropDead() {
    return this.#act(() => request(path("/d/", this.#name), { method: "DELETE" }), ({ dropped }) => `${plural(dropped, "message")} dropped.`);
  }

  /** Runs a command for one message; `done` is the answer's member that says whether it had an effect. */
  #command(command, done, outcome, without) {
    return this.#act(() => post("/queue", { body: JSON.stringify({ queue: this.#name, ...command }) }), (answer) => (answer[done] ? outcome : without));
  }

  async #act(ask, outcome) {
    try {
      notify(outcome(await (await ask()).json()));
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

/** What a search looks at, in lower case. */
function textOf({ key, value, reason = "", content_type: type = "", headers = {} }) {
  return [key, value, reason, type, ...Object.entries(headers).flat()].join("\n").toLowerCase();
}

/** Why deliveries of a message failed, here and in the queue where it was a dead letter. */
function reasons({ reason, failed, dead_letter: origin }) {
  const told = [];
  if (reason) told.push(`Failed ${stamp(failed)}: ${reason}`);
  if (origin) told.push(`Was the dead letter ${origin.key}${origin.reason ? `, failed ${stamp(origin.failed)}: ${origin.reason}` : ""}`);
  return told;
}

/** What is known of a message: its times, and what the producer sent with it. */
export function known(message) {
  const { sent, first, last, due, died } = message;
  const times = { Published: sent, "First delivery": first, "Last delivery": last === first ? 0 : last, Due: due, Died: died };
  const facts = [...Object.entries(times).filter(([, time]) => time).map(([name, time]) => [name, stamp(time)]), ...Object.entries(sentWith(message))];
  return h("dl", { class: "known" }, ...facts.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]));
}
