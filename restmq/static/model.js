// The state of all queues, and their samples of the last minutes.
//
// Each event of the feed is a tick. A queue has samples only for ticks at which its numbers changed, so that thousands
// of idle queues cost nothing.

const TICKS_KEPT = 400;
const SMOOTHED_TICKS = 5;
// A worker that polls is not connected between two polls.
const POLLED_MS = 60_000;

/** The numbers of one queue, or the sums of all queues. */
export class Queue {
  samples = [];
  #polledAt = -Infinity;

  constructor(row, model) {
    this.row = row;
    this.model = model;
  }

  get consumers() {
    return this.row.comet + this.row.sse + this.row.websocket;
  }

  /** Whether a client polls: it waits or holds a lease now, or one did or took a message in the last minute. */
  get isPolled() {
    return this.row.waiters + this.row.leased > 0 || this.model.now - this.#polledAt < POLLED_MS;
  }

  /** Whether no consumer is connected, on any server, and no client polls. */
  get hasNoConsumers() {
    return this.consumers === 0 && !this.isPolled;
  }

  /** "paused", "alone" (messages wait, and there are no consumers), or "". */
  get condition() {
    if (!this.row.started) return "paused";
    return this.row.ready > 0 && this.hasNoConsumers ? "alone" : "";
  }

  /** Learns that a client took messages at this time, which may be before the page was opened. */
  sawTaking(time) {
    this.#polledAt = Math.max(this.#polledAt, time);
  }

  take(row) {
    const last = this.samples.at(-1);
    if (this.row?.waiters || this.row?.leased || (last && row.out > last.out)) this.#polledAt = this.model.now;
    this.row = row;
    if (last && last.ready === row.ready && last.in === row.in && last.out === row.out) return;
    this.samples.push({ tick: this.model.tick, ready: row.ready, in: row.in, out: row.out });
    if (this.samples.length > 2 * TICKS_KEPT) this.samples.splice(0, TICKS_KEPT);
  }

  #at(tick) {
    for (let i = this.samples.length - 1; i >= 0; i -= 1) if (this.samples[i].tick <= tick) return this.samples[i];
    return this.samples[0];
  }

  /** Messages per second over the last five ticks; `what` is "in" or "out". Null until two ticks are known. */
  rate(what) {
    const { model } = this;
    const since = Math.max(model.tick - SMOOTHED_TICKS, model.unbrokenSince);
    const seconds = (model.timeOf(model.tick) - model.timeOf(since)) / 1000;
    if (!(seconds > 0)) return null;
    return Math.max(0, (this.row[what] - this.#at(since)[what]) / seconds);
  }

  /** `{time, ready, in, out}` for each tick kept; `in` and `out` are totals. */
  series() {
    const { model } = this;
    const samples = [];
    let i = 0;
    for (let tick = model.firstTick; tick <= model.tick; tick += 1) {
      while (i + 1 < this.samples.length && this.samples[i + 1].tick <= tick) i += 1;
      const sample = this.samples[i];
      if (sample && sample.tick <= tick) samples.push({ ...sample, time: model.timeOf(tick) });
    }
    return samples;
  }
}

export class Model {
  leftOut = 0;
  missing = 0;
  version = "";
  #columns = [];
  #ticks;
  #unborn;

  constructor() {
    this.forget();
  }

  /** Forgets everything, so that a user who lost access sees nothing more. `why` is shown instead. */
  forget(why = "") {
    this.refused = why;
    this.queues = new Map();
    this.may = {};
    this.known = false;
    this.tick = 0;
    this.firstTick = this.unbrokenSince = 1;
    this.#ticks = [];
    this.#unborn = {};
    this.whole = new Queue(null, this);
  }

  /** The server's time at the last tick. */
  get now() {
    return this.#ticks.at(-1) ?? Date.now();
  }

  timeOf(tick) {
    return this.#ticks[tick - this.firstTick];
  }

  /** Applies an event of the feed. */
  take(type, event) {
    if (type === "offers") this.may = event.may;
    if (type !== "snapshot" && type !== "change") return;
    const isSnapshot = type === "snapshot";
    this.#step(event.time, isSnapshot);
    this.missing = event.missing ?? 0;
    if (isSnapshot) this.#begin(event);
    for (const name of event.gone ?? []) this.queues.delete(name);
    for (const row of event.queues) this.#takeRow(row, isSnapshot);
    this.whole.take(this.#sum());
  }

  #step(time, isBreak) {
    this.tick += 1;
    this.#ticks.push(time);
    if (isBreak) this.unbrokenSince = this.tick;
    if (this.#ticks.length > TICKS_KEPT) {
      this.#ticks.shift();
      this.firstTick += 1;
    }
  }

  #begin(event) {
    this.#columns = event.columns;
    this.leftOut = event.left_out;
    this.version = event.version;
    this.known = true;
    const named = new Set(event.queues.map((row) => row[0]));
    for (const name of this.queues.keys()) if (!named.has(name)) this.queues.delete(name);
  }

  #takeRow(values, isSnapshot) {
    const row = {};
    this.#columns.forEach((column, i) => { row[column] = values[i]; });
    let queue = this.queues.get(row.name);
    if (!queue) {
      queue = new Queue(row, this);
      // A queue that is new since the last tick was empty then.
      if (!isSnapshot) queue.samples.push({ tick: this.tick - 1, ready: 0, in: 0, out: 0 });
      this.queues.set(row.name, queue);
    }
    queue.take(row);
  }

  #sum() {
    const sum = { name: "", started: 1 };
    for (const column of this.#columns) if (!(column in sum) && column !== "policy" && column !== "oldest") sum[column] = 0;
    let oldest = null;
    for (const { row } of this.queues.values()) {
      for (const column in sum) if (column !== "name" && column !== "started") sum[column] += row[column];
      if (row.oldest !== null && (oldest === null || row.oldest < oldest)) oldest = row.oldest;
    }
    return { ...sum, oldest };
  }

  /** Stores the state of a queue that does not exist yet, which the feed does not contain. */
  learn(name, started, policy) {
    this.#unborn = { name, started, policy };
  }

  /** The queue with this name; an empty one if it does not exist yet. */
  queue(name) {
    const found = this.queues.get(name);
    if (found) return found;
    const row = { name };
    for (const column of this.#columns) row[column] ??= 0;
    const told = this.#unborn.name === name ? this.#unborn : { started: 1, policy: "broadcast" };
    const empty = new Queue({ ...row, ...told, oldest: null }, this);
    empty.samples.push({ tick: this.firstTick, ready: 0, in: 0, out: 0 });
    return empty;
  }
}
