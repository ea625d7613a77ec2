// A queue's own page: its figures and chart, what can be done with it, and a panel for each.

import { getJson, path, post, request } from "./api.js";
import { Chart } from "./chart.js";
import { Consumers } from "./consumers.js";
import { h, report, say } from "./dom.js";
import { age, count, plural, rate } from "./format.js";
import { Messages } from "./messages.js";
import { Figures } from "./overview.js";
import { publishPanel } from "./publish.js";
import { Settings } from "./settings.js";
import { Tail } from "./tail.js";

export class QueuePage {
  #model;
  #name;

  constructor(model, name) {
    this.#model = model;
    this.#name = name;
    this.title = `${name} – RestMQ`;
    const queue = () => model.queue(name);
    this.chip = h("span", { class: "chip" });
    this.policy = h("span", { class: "policy-word" });
    this.switch = h("button", { type: "button", on: { click: () => this.#startOrPause() } });
    this.purge = h("button", { type: "button", class: "bad-outline", on: { click: () => this.#askToPurge() } }, "Purge…");
    this.notes = h("div", { class: "notes", role: "status" });
    this.figures = new Figures({
      ready: "Waiting", in: "In / s", out: "Out / s", leased: "Leased", delayed: "Delayed", dead: "Dead", consumers: "Consumers", oldest: "Oldest",
    });
    this.chart = new Chart(`Messages waiting, in and out, of ${name} in the last five minutes`);
    this.panels = {
      messages: new Messages(name, queue, () => model.may, () => model.now),
      tail: new Tail(name, queue, () => model.may),
      consumers: new Consumers(name, queue, () => model.may),
      settings: new Settings(name, queue, () => model.may, () => this.#learn()),
    };
    this.publish = publishPanel(name);
    this.element = h("div", { class: "queue-page" },
      h("div", { class: "queue-head" }, h("a", { href: "#/", class: "back" }, "Queues"),
        h("h1", {}, name), h("p", { class: "state" }, this.chip, this.policy), h("div", { class: "acts" }, this.switch, this.purge)),
      this.notes, this.figures.element, this.chart.figure,
      h("div", { class: "panels" },
        h("div", { class: "column wide" }, this.panels.messages.element, this.panels.tail.element),
        h("div", { class: "column" }, this.publish, this.panels.consumers.element, this.panels.settings.element)));
    this.update();
    this.#learn();
  }

  /** A queue exists from its first message on, but can be paused and set up before. */
  async #learn() {
    if (this.#model.queues.has(this.#name)) return;
    try {
      const { status, policy } = await getJson(path("/stats/", this.#name));
      this.#model.learn(this.#name, status, policy);
      this.update();
    } catch (error) {
      report(error.message, true);
    }
  }

  close() {
    this.panels.tail.stop();
  }

  update() {
    const queue = this.#model.queue(this.#name);
    const { row } = queue;
    const { may } = this.#model;
    if (!this.#model.known) return;
    this.figures.update({
      ready: count(row.ready), in: rate(queue.rate("in")), out: rate(queue.rate("out")), leased: count(row.leased), delayed: count(row.delayed),
      dead: count(row.dead), consumers: count(queue.consumers), oldest: row.oldest === null ? "–" : age(this.#model.now - row.oldest),
    });
    this.chart.show(queue, this.#model.now);
    say(this.chip, row.started ? "Started" : "Paused");
    this.chip.className = row.started ? "chip good" : "chip paused";
    say(this.policy, row.policy === "broadcast" ? "broadcast: every consumer gets each message" : "round robin: each message goes to one consumer");
    say(this.switch, row.started ? "Pause" : "Start");
    this.switch.hidden = !may.configure;
    this.purge.hidden = !may.purge;
    this.publish.hidden = !may.publish;
    this.#tellNotes(queue);
    for (const panel of Object.values(this.panels)) panel.update();
  }

  #tellNotes(queue) {
    const { row } = queue;
    const notes = [];
    if (!row.started) notes.push("Paused. Connected consumers get nothing and messages pile up; who takes them by GET /q/ or under a lease still does.");
    if (queue.isUnheard) notes.push(`No consumers. ${whatBecomes(queue)}`);
    if (row.dead) notes.push(`${plural(row.dead, "dead letter")}: given up after too many failed deliveries. See Messages, Dead.`);
    const text = notes.join("\n");
    if (this.notes.dataset.said === text) return;
    this.notes.dataset.said = text;
    this.notes.replaceChildren(...notes.map((note) => h("p", { class: note.startsWith("No consumers") && queue.condition !== "alone" ? "note" : "note warn" }, note)));
  }

  async #startOrPause() {
    const { started } = this.#model.queue(this.#name).row;
    this.switch.disabled = true;
    try {
      await post(path("/control/", this.#name), { status: started ? "stop" : "start" });
      report(started ? "Paused." : "Started.");
      this.#learn();
    } catch (error) {
      report(error.message, true);
    } finally {
      this.switch.disabled = false;
    }
  }

  #askToPurge() {
    const name = this.#name;
    const go = h("button", { type: "submit", class: "bad", disabled: true }, "Purge");
    const typed = h("input", { id: "purge-name", autocomplete: "off", spellcheck: false, on: { input: () => { go.disabled = typed.value !== name; } } });
    const dialog = h("dialog", { "aria-labelledby": "purge-title", on: { close: () => dialog.remove() } },
      h("form", { method: "dialog", on: { submit: () => this.#purge() } },
        h("h2", { id: "purge-title" }, "Purge this queue?"),
        h("p", {}, "All its messages are dropped for good, also those that are leased, delayed or dead, and all its connected consumers are closed. There is no way back."),
        h("label", { for: "purge-name" }, "Type the queue’s name, ", h("code", {}, name)), typed,
        h("div", { class: "acts" }, h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel"), go)));
    document.body.append(dialog);
    dialog.showModal();
  }

  async #purge() {
    try {
      await request(path("/q/", this.#name), { method: "DELETE" });
      report("Purged.");
    } catch (error) {
      report(error.message, true);
    }
  }
}

/** What becomes of the messages of a queue that nobody listens to. */
function whatBecomes(queue) {
  const { ready } = queue.row;
  if (queue.rate("out")) return "Messages are taken by single requests.";
  if (!ready) return "What comes waits here until somebody takes it.";
  return ready === 1 ? "1 message waits until somebody takes it." : `${count(ready)} messages wait until somebody takes them.`;
}
