// The queue's policy and settings.

import { getJson, path, post } from "./api.js";
import { complain, h, report, say } from "./dom.js";

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
  #loaded = null;
  #policyTold;

  constructor(name, queue, may, onSaved) {
    this.#name = name;
    this.#queue = queue;
    this.#may = may;
    this.#onSaved = onSaved;
    this.policy = h("select", { id: "setting-policy" }, h("option", { value: "broadcast" }, "broadcast"), h("option", { value: "roundrobin" }, "round robin"));
    this.numbers = Object.fromEntries(Object.entries(NUMBERS).map(([setting, [, , most]]) =>
      [setting, h("input", { type: "number", id: `setting-${setting}`, "aria-describedby": `about-${setting}`, min: 0, max: most, step: 1 })]));
    this.deadLetter = h("input", { id: "setting-dead_letter", "aria-describedby": "about-dead_letter", spellcheck: false, autocomplete: "off" });
    this.inputs = { policy: this.policy, ...this.numbers, dead_letter: this.deadLetter };
    this.missing = h("p", { class: "nothing" }, "Not read from the server yet.");
    this.problem = h("p", { class: "problem", role: "alert" });
    this.go = h("button", { type: "submit" }, "Save");
    const field = (setting, label, about, input) => [h("label", { for: input.id }, label), input, h("p", { class: "about", id: `about-${setting}` }, about)];
    this.element = h("section", { class: "panel", "aria-labelledby": "settings-title" },
      h("header", {}, h("h2", { id: "settings-title" }, "Policy and settings")),
      this.form = h("form", { class: "settings", on: { submit: (event) => this.#save(event) } },
        ...field("policy", "Policy", "who gets a message: every connected consumer, or one in turn", this.policy),
        ...Object.entries(NUMBERS).flatMap(([setting, [label, about]]) => field(setting, label, about, this.numbers[setting])),
        ...field("dead_letter", "Dead letters go to", "a queue’s name; empty to keep them here", this.deadLetter),
        this.missing, this.problem, this.go));
  }

  update() {
    const mayChange = Boolean(this.#may().configure);
    for (const input of Object.values(this.inputs)) input.disabled = !mayChange || !this.#loaded;
    this.go.hidden = !mayChange;
    this.go.disabled = !this.#loaded;
    this.missing.hidden = this.#loaded !== null;
    // Somebody else may have changed the policy.
    const { policy } = this.#queue().row;
    if (this.#loaded && policy !== this.#policyTold) this.load();
    this.#policyTold = policy;
  }

  /** Reads the settings. What the user has changed in the form, and not saved, stays as it is. */
  async load() {
    let said;
    try {
      said = await getJson(path("/p/", this.#name));
    } catch (error) {
      if (!this.#loaded) say(this.missing, error.message);
      return;
    }
    const changed = this.#changed();
    this.#loaded = {};
    for (const [setting, input] of Object.entries(this.inputs)) {
      this.#loaded[setting] = String((setting === "policy" ? said.value : said[setting]) ?? "");
      if (!(setting in changed)) input.value = this.#loaded[setting];
    }
    this.update();
  }

  /** What the user has made of what was loaded. */
  #changed() {
    if (!this.#loaded) return {};
    return Object.fromEntries(Object.entries(this.inputs).map(([setting, input]) => [setting, input.value])
      .filter(([setting, value]) => value !== this.#loaded[setting]));
  }

  /** Sends only what was changed: the rest may be other by now than what is shown here. */
  async #save(event) {
    event.preventDefault();
    this.problem.textContent = "";
    const changed = this.#changed();
    if (!Object.keys(changed).length) {
      report("Nothing was changed.");
      return;
    }
    try {
      // An empty number says nothing to the server; 0 takes the setting away.
      const fields = Object.entries(changed).map(([setting, value]) => [setting, setting in this.numbers ? value || "0" : value]);
      await post(path("/p/", this.#name), Object.fromEntries(fields));
      report("Saved.");
    } catch (error) {
      complain(this.problem, error);
      return;
    }
    Object.assign(this.#loaded, changed);
    this.#onSaved();
  }
}
