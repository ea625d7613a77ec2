// The queue's policy and settings.

import { getJson, path, post } from "./api.js";
import { complain, h, report } from "./dom.js";

const NUMBERS = {
  lease: ["Lease, s", "where a client asks for a lease and does not say how long; empty for 30", 43200],
  max_deliveries: ["Deliveries at most", "then it is a dead letter; empty for no limit", 1000],
  max_length: ["Messages at most", "then publishing is refused; empty for no limit", 1000000000],
  history: ["History", "how many broadcast messages are kept for consumers that come back", 10000],
};

export class Settings {
  #name;
  #queue;
  #may;
  #onSaved;
  #policyShown = "";

  constructor(name, queue, may, onSaved) {
    this.#name = name;
    this.#queue = queue;
    this.#may = may;
    this.#onSaved = onSaved;
    this.policy = h("select", { id: "setting-policy" }, h("option", { value: "broadcast" }, "broadcast"), h("option", { value: "roundrobin" }, "round robin"));
    this.numbers = Object.fromEntries(Object.entries(NUMBERS).map(([setting, [, , most]]) =>
      [setting, h("input", { type: "number", id: `setting-${setting}`, "aria-describedby": `about-${setting}`, min: 0, max: most, step: 1 })]));
    this.deadLetter = h("input", { id: "setting-dead_letter", "aria-describedby": "about-dead_letter", spellcheck: false, autocomplete: "off" });
    this.problem = h("p", { class: "problem", role: "alert" });
    this.go = h("button", { type: "submit" }, "Save");
    const field = (setting, label, about, input) => [h("label", { for: input.id }, label), input, h("p", { class: "about", id: `about-${setting}` }, about)];
    this.element = h("section", { class: "panel", "aria-labelledby": "settings-title" },
      h("header", {}, h("h2", { id: "settings-title" }, "Policy and settings")),
      this.form = h("form", { class: "settings", on: { submit: (event) => this.#save(event) } },
        ...field("policy", "Policy", "who gets a message: every connected consumer, or one in turn", this.policy),
        ...Object.entries(NUMBERS).flatMap(([setting, [label, about]]) => field(setting, label, about, this.numbers[setting])),
        ...field("dead_letter", "Dead letters go to", "a queue’s name; empty to keep them here", this.deadLetter),
        this.problem, this.go));
    this.#load();
  }

  update() {
    const mayChange = Boolean(this.#may().configure);
    for (const input of [this.policy, this.deadLetter, ...Object.values(this.numbers)]) input.disabled = !mayChange;
    this.go.hidden = !mayChange;
    // Somebody else may have changed the policy.
    const { policy } = this.#queue().row;
    if (policy !== this.#policyShown && !this.form.contains(document.activeElement)) {
      this.#policyShown = policy;
      this.policy.value = policy;
    }
  }

  async #load() {
    try {
      const said = await getJson(path("/p/", this.#name));
      this.policy.value = this.#policyShown = said.value;
      for (const [setting, input] of Object.entries(this.numbers)) input.value = said[setting] ?? "";
      this.deadLetter.value = said.dead_letter ?? "";
    } catch (error) {
      complain(this.problem, error);
    }
  }

  async #save(event) {
    event.preventDefault();
    this.problem.textContent = "";
    const fields = { policy: this.policy.value, dead_letter: this.deadLetter.value };
    for (const [setting, input] of Object.entries(this.numbers)) fields[setting] = input.value || "0";
    try {
      await post(path("/p/", this.#name), fields);
      report("Saved.");
    } catch (error) {
      complain(this.problem, error);
      return;
    }
    this.#onSaved();
    this.#load();
  }
}
