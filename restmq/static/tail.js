// The live tail: a tap, which shows each message that is put into the queue, and takes none.

import { path, request, webSocketAddress } from "./api.js";
import { h, setText } from "./dom.js";
import { clock, plural } from "./format.js";
import { preview, renderValue } from "./json.js";
import { known } from "./messages.js";
import { events, lines } from "./stream.js";

const SHOWN_AT_MOST = 200;
const RETRY_MS = 1000;

const TRANSPORTS = {
  lines: { label: "Lines", offer: "comet", watch: watchLines },
  sse: { label: "Server-Sent Events", offer: "comet", watch: watchEvents },
  websocket: { label: "WebSocket", offer: "websocket", watch: watchWebSocket },
};

async function* watchLines(queue, last_event_id, signal, onOpen) {
  const response = await request(path("/tap/", queue, { last_event_id }), { signal });
  onOpen();
  for await (const line of lines(response)) if (line) yield JSON.parse(line);
}

async function* watchEvents(queue, last_event_id, signal, onOpen) {
  const response = await request(path("/tap/", queue, { last_event_id }), { signal, headers: { Accept: "text/event-stream" } });
  onOpen();
  for await (const event of events(response)) {
    yield event.type === "gap" ? JSON.parse(event.data) : { key: event.id, value: event.data, encoding: event.encoding };
  }
}

async function* watchWebSocket(queue, last_event_id, signal, onOpen) {
  const socket = new WebSocket(webSocketAddress(path("/ws/", queue, { tap: 1, last_event_id })), "restmq");
  const received = [];
  let wake = () => {};
  let ended = null;
  socket.onopen = onOpen;
  socket.onmessage = (event) => { received.push(JSON.parse(event.data)); wake(); };
  socket.onclose = (event) => { ended = new Error(event.reason || "The connection ended."); wake(); };
  signal.addEventListener("abort", () => socket.close(), { once: true });
  for (;;) {
    while (received.length) yield received.shift();
    if (ended) throw ended;
    await new Promise((resolve) => { wake = resolve; });
  }
}

export class Tail {
  #name;
  #may;
  #abort = null;
  #received = 0;
  #lastKey = "";

  constructor(name, may) {
    this.#name = name;
    this.#may = may;
    this.note = h("p", { class: "note", id: "tail-note" }, "Shows a copy of each message that is put into the queue from now on, and takes none.");
    this.choices = Object.entries(TRANSPORTS).map(([transport, { label }], i) => h("label", {},
      h("input", { type: "radio", name: "tail", value: transport, checked: i === 0 }), label));
    this.go = h("button", { type: "button", class: "main", "aria-describedby": "tail-note", on: { click: () => (this.#abort ? this.stop() : this.#start()) } });
    this.state = h("span", { class: "aside", role: "status" });
    this.list = h("ol", { class: "messages tail", "aria-label": "Messages that were put in, newest first" });
    this.element = h("section", { class: "panel", "aria-labelledby": "tail-title" },
      h("header", {}, h("h2", { id: "tail-title" }, "Live tail"), this.state),
      h("div", { class: "line" }, h("fieldset", { class: "choice" }, h("legend", { class: "unseen" }, "Transport"), ...this.choices), this.go),
      this.note, this.list);
  }

  get isListening() {
    return this.#abort !== null;
  }

  update() {
    const may = this.#may();
    const transports = Object.values(TRANSPORTS);
    this.choices.forEach((choice, i) => { choice.hidden = !may[transports[i].offer]; });
    this.element.hidden = !may.comet && !may.websocket;
    for (const choice of this.choices) choice.firstChild.disabled = this.#abort !== null;
    if (this.#chosen().closest("label").hidden) {
      const offered = this.choices.find((choice) => !choice.hidden);
      if (offered) offered.firstChild.checked = true;
    }
    this.note.hidden = this.#abort !== null;
    setText(this.go, this.#abort ? "Stop" : "Watch");
  }

  #chosen() {
    return this.choices.map((choice) => choice.firstChild).find((radio) => radio.checked);
  }

  async #start() {
    const abort = new AbortController();
    this.#abort = abort;
    const transport = TRANSPORTS[this.#chosen().value];
    this.#received = 0;
    this.#lastKey = "";
    this.list.replaceChildren();
    this.update();
    while (!abort.signal.aborted) {
      setText(this.state, "Connecting…");
      try {
        const watching = () => setText(this.state, `Watching by ${transport.label}`);
        for await (const message of transport.watch(this.#name, this.#lastKey, abort.signal, watching)) this.#show(message);
        setText(this.state, "The server ended the connection. Retrying…");
      } catch (error) {
        if (abort.signal.aborted) return;
        if (error.status >= 400 && error.status < 500) {
          this.stop();
          setText(this.state, error.message);
          return;
        }
        setText(this.state, `${error.message} Retrying…`);
      }
      await new Promise((resolve) => { setTimeout(resolve, RETRY_MS); });
    }
  }

  stop() {
    if (!this.#abort) return;
    this.#abort.abort();
    this.#abort = null;
    setText(this.state, this.#received ? `Stopped after ${plural(this.#received, "message")}` : "");
    this.update();
  }

  #show(message) {
    if (message.event === "gap") {
      this.list.prepend(h("li", { class: "note" }, "Messages are missing here: the connection broke, or this page was too slow."));
      return;
    }
    this.#received += 1;
    this.#lastKey = message.key;
    const body = h("div", { class: "message-body" });
    const details = h("details", { on: { toggle: () => { if (details.open && !body.childNodes.length) body.append(known(message), renderValue(message.value, message.encoding, false)); } } },
      h("summary", {}, h("code", { class: "key" }, message.key.slice(message.key.lastIndexOf(":") + 1)),
        h("span", { class: "preview" }, preview(message.value, message.encoding)), h("span", { class: "facts" }, h("time", {}, clock(Date.now())))), body);
    this.list.prepend(h("li", { data: { key: message.key } }, details));
    while (this.list.childElementCount > SHOWN_AT_MOST) this.list.lastElementChild.remove();
  }
}
