// The samples behind a chart: the server's of the last hour, and the page's own of the last minutes.

import { credentials, send } from "./api.js";

const STEP_MS = 10_000;  // between two samples of the server
const HOUR_MS = 60 * 60_000;
const RELOAD_MS = 5 * 60_000;  // less than the time for which the page keeps its own samples
const RETRY_MS = 5000;
// One missing sample is no gap: a server with many queues takes some seconds to read them.
const GAP_MS = 2.5 * STEP_MS;

export class LastHour {
  #target;
  #samples = [];
  #waiting = new Map();
  #token;
  #loadedAt = -Infinity;
  #loadedFor;
  #isLoading = false;

  /** @param target the path with the samples; empty if there is none. */
  constructor(target) {
    this.#target = target;
  }

  forget() {
    this.#samples = [];
    this.#waiting = new Map();
    this.#loadedFor = undefined;
  }

  /** Loads the samples when the page has connected anew, and every five minutes. Tells the model when clients took messages. */
  async refresh(model) {
    const connection = model.unbrokenSince;
    const waited = performance.now() - this.#loadedAt;
    if (!this.#target || this.#isLoading || waited < (connection === this.#loadedFor ? RELOAD_MS : RETRY_MS)) return;
    this.#isLoading = true;
    const { token } = credentials;
    try {
      const response = await send(this.#target);
      if (response.ok) {
        const found = await response.json();
        this.#take(found, token);
        for (const [name, time] of Object.entries(found.taken)) model.queues.get(name)?.sawTaking(time);
      }
    } catch {
      // Shown elsewhere: the feed has lost the server too.
    }
    this.#loadedAt = performance.now();
    this.#loadedFor = connection;
    this.#isLoading = false;
  }

  /** Keeps samples that are older than the server's, which may have lost them in a restart. */
  #take({ samples, waiting }, token) {
    const first = samples[0]?.time ?? Infinity;
    const oldest = (samples.at(-1)?.time ?? 0) - HOUR_MS;
    const kept = token === this.#token ? this.#samples.filter(({ time }) => time < first && time >= oldest) : [];
    this.#samples = [...kept, ...samples];
    this.#waiting = new Map(Object.entries(waiting));
    this.#token = token;
  }

  /** `{time, ready}` of one of the queues in the last two minutes before the samples were loaded. */
  recent(name) {
    const waiting = this.#waiting.get(name) ?? [];
    return waiting.map((ready, i) => ({ time: this.#samples[this.#samples.length - waiting.length + i].time, ready }));
  }

  /** All samples in order. The server's are used where the page has none. */
  join(own) {
    const joined = [];
    let i = 0;
    for (const sample of this.#samples) {
      while (i < own.length && own[i].time < sample.time - STEP_MS / 2) {
        joined.push(own[i]);
        i += 1;
      }
      if (i === own.length || own[i].time > sample.time + STEP_MS / 2) joined.push(sample);
    }
    return [...joined, ...own.slice(i)];
  }
}

/** One sample for each ten seconds, and the newest. */
export function thinned(samples) {
  const slot = (sample) => Math.floor(sample.time / STEP_MS);
  const kept = samples.filter((sample, i) => i + 1 === samples.length || slot(samples[i + 1]) !== slot(sample));
  // The rate of a moment would jump.
  if (kept.length > 1 && kept.at(-1).time - kept.at(-2).time < STEP_MS / 2) kept.splice(-2, 1);
  return kept;
}

/** `{time, ready, in, out}` with rates for each sample; null where samples are missing. A rate may be unknown, i.e. null. */
export function pointsOf(samples) {
  const points = [];
  let before = null;
  for (const sample of samples) {
    const milliseconds = before && sample.time - before.time;
    if (milliseconds !== null && milliseconds <= 0) continue;  // the server's clock was set
    const point = { time: sample.time, ready: sample.ready, in: null, out: null };
    if (milliseconds > GAP_MS) points.push(null);
    else if (before) {
      for (const what of ["in", "out"]) {
        point[what] = Math.max(0, (sample[what] - before[what]) * 1000 / milliseconds);
        points.at(-1)[what] ??= point[what];  // the first rate holds for the time before it too
      }
    }
    points.push(point);
    before = sample;
  }
  return points;
}
