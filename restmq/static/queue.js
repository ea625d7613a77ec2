// The page of one queue: figures, chart, actions and panels.

import { getJson, isAddressable, path, post, request } from "./api.js";
import { Chart } from "./chart.js";
import { Consumers } from "./consumers.js";
import { h, nameNodes, notify, setText } from "./dom.js";
import { age, count, plural, rate } from "./format.js";
import { Messages } from "./messages.js";
import { Figures, consumers } from "./overview.js";
import { publishPanel } from "./publish.js";
import { Settings } from "./settings.js";
import { Sqs } from "./sqs.js";
import { Tail } from "./tail.js";

export class QueuePage {
  #model;
  #name;
  #refusal = "";
  #isThere = false;
  #isTold = false;
  #asksAgain = false;
  #dialog = null;

  constructor(model, name) {
    this.#model = model;
    this.#name = name;
    this.title = `${name} – RestMQ`;
    const queue = () => model.queue(name);
    this.chip = h("span", { class: "chip" });
    this.policy = h("span", { class: "policy-word" });
    this.switch = h("button", { type: "button", on: { click: () => this.#startOrPause() } });
    this.purge = h("button", { type: "button", class: "bad-outline", on: { click: () => this.#askToPurge() } }, "Purge or remove…");
    this.notes = h("div", { class: "notes", role: "status" });
    this.figures = new Figures({
      ready: "Waiting", in: "In / s", out: "Out / s", leased: "Leased", delayed: "Delayed", dead: "Dead", consumers: "Consumers", oldest: "Oldest",
    }, {
      ready: () => this.panels.messages.jump("next"), leased: () => this.panels.messages.jump("leased"), delayed: () => this.panels.messages.jump("delayed"),
      dead: () => this.panels.messages.jump("dead"), consumers: () => this.panels.consumers.element.scrollIntoView({ block: "nearest" }),
    });
    this.chart = new Chart(name, isAddressable(name) ? path("/dashboard/samples/", name) : "");
    this.panels = {
      messages: new Messages(name, queue, () => model.may, () => model.now),
      tail: new Tail(name, () => model.may),
      consumers: new Consumers(name, queue, () => model.may),
      settings: new Settings(name, queue, () => model.may, () => this.resume()),
      sqs: new Sqs(name, queue),
    };
    this.publish = publishPanel(name);
    this.why = h("p", { class: "hint" });
    const state = h("p", { class: "state" }, this.chip, this.policy);
    const acts = h("div", { class: "acts" }, this.switch, this.purge);
    const panels = h("div", { class: "panels" },
      h("div", { class: "column wide" }, this.panels.messages.element, this.panels.tail.element),
      h("div", { class: "column" }, this.publish, this.panels.consumers.element, this.panels.sqs.element, this.panels.settings.element));
    this.facts = [state, this.notes, this.figures.element, this.chart.figure];
    this.offers = [acts, panels];
    this.element = h("div", { class: "queue-page" },
      h("div", { class: "queue-head" }, h("a", { href: "#/", class: "back" }, "Dashboard"), h("h1", {}, ...nameNodes(name)), state, acts),
      this.why, this.notes, this.figures.element, this.chart.figure, panels);
    this.update();
  }

  get isListening() {
    return this.panels.tail.isListening;
  }

  /** Loads what the feed does not contain. Called after each (re)connection, perhaps with new credentials. */
  async resume() {
    if (!isAddressable(this.#name)) return;
    this.#asksAgain = false;
    if (!this.#model.queues.has(this.#name)) {
      // A queue exists from its first message on, but can be paused and set up before.
      try {
        const { status, policy } = await getJson(path("/stats/", this.#name));
        this.#model.learn(this.#name, status, policy);
        this.#isTold = true;
        this.#refusal = "";
      } catch (error) {
        const isRefused = error.status >= 400 && error.status < 500;
        if (isRefused) this.#refusal = error.message;
        else notify(error.message, true);
        this.update();
        this.#asksAgain = !isRefused;  // at the next event of the feed
        return;
      }
    }
    this.update();
    this.panels.settings.load();
    this.panels.sqs.load();
  }

  close() {
    this.panels.tail.stop();
    this.#dialog?.close();
  }

  /** Why the queue can't be shown or changed; "" if it can. */
  #whyNot() {
    if (!this.#model.known) return this.#model.refused || "Waiting for data from the server…";
    if (this.#refusal) return this.#refusal;
    if (!isAddressable(this.#name)) return `A browser can’t request a queue named “${this.#name}”, because it resolves that name in the address. Use the command line: restmq.`;
    return this.#isTold ? "" : "Waiting for data about this queue…";
  }

  update() {
    const { known, queues } = this.#model;
    const wasThere = this.#isThere;
    this.#isThere = queues.has(this.#name);
    if (this.#isThere) {
      this.#isTold = true;
      this.#refusal = "";
    } else if (!known) this.#isTold = false;
    else if (wasThere || this.#asksAgain) this.resume();  // the token may have lost access to it
    const why = this.#whyNot();
    setText(this.why, why);
    this.why.hidden = !why;
    const isShown = this.#isTold && !this.#refusal;
    for (const each of this.facts) each.hidden = !isShown;
    for (const each of this.offers) each.hidden = why !== "";
    if (isShown) this.#showFacts();
    if (why) this.panels.tail.stop();
    else this.#showOffers();
  }

  #showFacts() {
    const queue = this.#model.queue(this.#name);
    const { row } = queue;
    this.figures.update({
      ready: count(row.ready), in: rate(queue.rate("in")), out: rate(queue.rate("out")), leased: count(row.leased), delayed: count(row.delayed),
      dead: count(row.dead), consumers: consumers(queue), oldest: row.oldest === null ? "–" : age(this.#model.now - row.oldest),
    });
    this.chart.show(queue, this.#model.now);
    setText(this.chip, !row.started ? "Paused" : this.#isMissing ? "Does not exist" : "Started");
    this.chip.className = !row.started ? "chip paused" : this.#isMissing ? "chip" : "chip good";
    setText(this.policy, row.policy === "broadcast" ? "broadcast: each message goes to every connected consumer" : "round robin: each message goes to one connected consumer");
    this.#tellNotes(queue);
  }

  #showOffers() {
    const { may } = this.#model;
    setText(this.switch, this.#model.queue(this.#name).row.started ? "Pause" : "Start");
    this.switch.hidden = !may.configure;
    this.purge.hidden = !may.purge;
    this.publish.hidden = !may.publish;
    for (const panel of Object.values(this.panels)) panel.update();
  }

  /** Whether the queue certainly does not exist. It may still have settings and consumers. */
  get #isMissing() {
    return this.#model.known && !this.#model.leftOut && !this.#model.missing && !this.#model.queues.has(this.#name);
  }

  #tellNotes(queue) {
    const { row } = queue;
    const notes = [];
    if (this.#isMissing) notes.push("This queue does not exist. Its first message creates it.");
    if (!row.started) notes.push("Paused. Messages queue up and connected consumers get none. GET /q/ and leases still take messages.");
    if (queue.hasNoConsumers && !this.#isMissing) notes.push(`No consumers. ${fateOfMessages(queue)}`);
    if (row.dead) notes.push(`${plural(row.dead, "dead letter")}, after too many failed deliveries.`);
    const text = notes.join("\n");
    if (this.notes.dataset.text === text) return;
    this.notes.dataset.text = text;
    this.notes.replaceChildren(...notes.map((note) => h("p", { class: note.startsWith("No consumers") && queue.condition !== "alone" ? "note" : "note warn" }, note,
      note.includes("dead letter") && h("button", { type: "button", class: "plain to-list", on: { click: () => this.panels.messages.jump("dead") } }, "Show"))));
  }

  async #startOrPause() {
    const { started } = this.#model.queue(this.#name).row;
    this.switch.disabled = true;
    try {
      await post(path("/control/", this.#name), { status: started ? "stop" : "start" });
      notify(started ? "Paused." : "Started.");
      this.resume();
    } catch (error) {
      notify(error.message, true);
    } finally {
      this.switch.disabled = false;
    }
  }

  #askToPurge() {
    const name = this.#name;
    const go = h("button", { type: "submit", class: "bad", disabled: true }, "Purge");
    const remove = h("input", { type: "checkbox", id: "purge-remove", on: { change: () => setText(go, remove.checked ? "Purge and remove" : "Purge") } });
    const typed = h("input", { id: "purge-name", autocomplete: "off", spellcheck: false, on: { input: () => { go.disabled = typed.value !== name; } } });
    const dialog = this.#dialog = h("dialog", { "aria-labelledby": "purge-title", on: { close: () => dialog.remove() } },
      h("form", { method: "dialog", on: { submit: () => this.#purge(remove.checked) } },
        h("h2", { id: "purge-title" }, "Purge this queue?"),
        h("p", {}, "This drops all its messages for good, including leased, delayed and dead ones, and disconnects all its consumers. It can’t be undone."),
        h("label", { for: "purge-name" }, "Type the queue’s name, ", h("code", {}, ...nameNodes(name))), typed,
        h("p", { class: "line" }, remove, h("label", { for: "purge-remove" }, "Also remove the queue itself, with its settings, policy, status and counters.")),
        h("div", { class: "acts" }, h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel"), go)));
    document.body.append(dialog);
    dialog.showModal();
  }

  async #purge(remove) {
    try {
      await request(path("/q/", this.#name, remove ? { remove } : {}), { method: "DELETE" });
      notify(remove ? "Removed." : "Purged.");
    } catch (error) {
      notify(error.message, true);
    }
  }
}

/** What happens to the messages of a queue without connected consumers. */
function fateOfMessages(queue) {
  const { ready } = queue.row;
  if (!ready) return "New messages wait here until a client takes them.";
  return ready === 1 ? "1 message waits until a client takes it." : `${count(ready)} messages wait until a client takes them.`;
}
