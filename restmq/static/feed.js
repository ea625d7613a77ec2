// The stream of events that feeds the page, and the state of its connection. It reconnects by itself.

import { Refusal, problem, send } from "./api.js";
import { events } from "./stream.js";

// The server sends an event every second, or every few seconds if it has very many queues.
const SILENCE_MS = 15_000;
const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 5000;

/**
 * Calls `onEvent(type, object)` for each event, and `onState(state, detail)` when the connection changes. States:
 * "connecting"; "live"; "store" (the server is reachable, its store is not); "gone" (`detail`: the reason); "refused"
 * (`detail`: a Refusal; the feed then waits for a call of `again`).
 */
export class Feed {
  #onEvent;
  #onState;
  #abort = new AbortController();
  #wake = () => {};
  #retryMs = RETRY_FIRST_MS;

  constructor(onEvent, onState) {
    this.#onEvent = onEvent;
    this.#onState = onState;
    window.addEventListener("online", () => this.#wake());
    document.addEventListener("visibilitychange", () => document.hidden || this.#wake());
  }

  /** Reconnects at once, for example with new credentials. */
  again() {
    this.#onState("connecting");
    this.#retryMs = RETRY_FIRST_MS;
    this.#abort.abort();
    this.#wake();
  }

  async run() {
    this.#onState("connecting");
    for (;;) {
      try {
        await this.#follow();
        this.#onState("gone", "The server ended the connection.");
      } catch (error) {
        if (error instanceof Refusal && error.status >= 400 && error.status < 500 && error.status !== 429) {
          this.#onState("refused", error);
          await this.#pause(60_000);
          continue;
        }
        this.#onState("gone", error instanceof Refusal ? error.message : "The connection to the server was lost.");
      }
      await this.#pause(this.#retryMs * (0.75 + Math.random() / 2));
      this.#retryMs = Math.min(this.#retryMs * 1.6, RETRY_MOST_MS);
    }
  }

  #pause(milliseconds) {
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, milliseconds);
    });
  }

  async #follow() {
    this.#abort = new AbortController();
    let watchdog;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => this.#abort.abort(), SILENCE_MS);
    };
    alive();
    try {
      const response = await send("/dashboard/events", { signal: this.#abort.signal });
      if (!response.ok) throw new Refusal(response.status, await problem(response));
      for await (const event of events(response)) {
        alive();
        this.#onEvent(event.type, JSON.parse(event.data));
        if (event.type === "snapshot" || event.type === "change") {
          this.#retryMs = RETRY_FIRST_MS;
          this.#onState("live");
        } else if (event.type === "store") this.#onState("store");
      }
    } finally {
      clearTimeout(watchdog);
    }
  }
}
