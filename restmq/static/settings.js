// The queue's policy and settings.

import { getJson, path, post } from "./api.js";
import { h, notify, setText, showError } from "./dom.js";

const NUMBERS = {
  lease: ["Lease, s", "default duration of a lease; empty for 30", 43200],
  max_deliveries: ["Maximum deliveries", "failed deliveries before a message becomes a dead letter; empty for no limit", 1000],
  retry_delay: ["Retry delay, s", "time until a failed message comes back; doubles with each delivery; empty for at once", 2592000],
  retry_delay_max: ["Maximum retry delay, s", "limit of this time; empty for an hour", 2592000],
  expires: ["Expires after, s", "time without messages and use after which the queue is removed; empty for the server’s default", 315360000],
  max_length: ["Maximum length", "messages in the queue; more are rejected; empty for no limit", 1000000000],
  history: ["History", "number of broadcast messages kept for consumers that reconnect", 10000],
  history_bytes: ["History, bytes", "maximum bytes of these messages; empty for 64 MiB", 1073741824],
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
    this.missing = h("p", { class: "nothing" }, "Not loaded from the server yet.");
    this.problem = h("p", { class: "problem", role: "alert" });
    this.go = h("button", { type: "submit" }, "Save");
    const field = (setting, label, about, input) => [h("label", { for: input.id }, label), input, h("p", { class: "about", id: `about-${setting}` }, about)];
    this.element = h("section", { class: "panel", "aria-labelledby": "settings-title" },
      h("header", {}, h("h2", { id: "settings-title" }, "Policy and settings")),
      this.form = h("form", { class: "settings", on: { submit: (event) => this.#save(event) } },
        ...field("policy", "Policy", "each message goes to every connected consumer, or to one in turn", this.policy),
        ...Object.entries(NUMBERS).flatMap(([setting, [label, about]]) => field(setting, label, about, this.numbers[setting])),
        ...field("dead_letter", "Dead letters go to", "name of a queue; empty to keep them here", this.deadLetter),
        this.missing, this.problem, this.go));
  }

  update() {
    const mayChange = Boolean(this.#may().configure);
    for (const input of Object.values(this.inputs)) input.disabled = !mayChange || !this.#loaded;
    this.go.hidden = !mayChange;
    this.go.disabled = !this.#loaded;
    this.missing.hidden = this.#loaded !== null;
    // Another client may have changed the policy.
    const { policy } = this.#queue().row;
    if (this.#loaded && policy !== this.#policyTold) this.load();
    this.#policyTold = policy;
  }

  /** Loads the settings. Keeps the user's unsaved changes in the form. */
  async load() {
    let saved;
    try {
      saved = await getJson(path("/p/", this.#name));
    } catch (error) {
      if (!this.#loaded) setText(this.missing, error.message);
      return;
    }
    const changed = this.#changed();
    this.#loaded = {};
    for (const [setting, input] of Object.entries(this.inputs)) {
      this.#loaded[setting] = String((setting === "policy" ? saved.value : saved[setting]) ?? "");
      if (!(setting in changed)) input.value = this.#loaded[setting];
    }
    this.update();
  }

  /** The fields that the user has changed since they were loaded. */
  #changed() {
    if (!this.#loaded) return {};
    return Object.fromEntries(Object.entries(this.inputs).map(([setting, input]) => [setting, input.value])
      .filter(([setting, value]) => value !== this.#loaded[setting]));
  }

  /** Sends only the changed fields: another client may have changed the others meanwhile. */
  async #save(event) {
    event.preventDefault();
    this.problem.textContent = "";
    const changed = this.#changed();
    if (!Object.keys(changed).length) {
      notify("Nothing was changed.");
      return;
    }
    try {
      // The server ignores an empty number; 0 restores the default.
      const fields = Object.entries(changed).map(([setting, value]) => [setting, setting in this.numbers ? value || "0" : value]);
      await post(path("/p/", this.#name), Object.fromEntries(fields));
      notify("Saved.");
    } catch (error) {
      showError(this.problem, error);
      return;
    }
    Object.assign(this.#loaded, changed);
    this.#onSaved();
  }
}
