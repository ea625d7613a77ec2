// The live tail: a real consumer, so that the messages it shows have been delivered to it.

import { path, request, webSocketAddress } from "./api.js";
import { h, setClass, setText } from "./dom.js";
import { clock, plural } from "./format.js";
import { preview, renderValue } from "./json.js";
import { events, lines } from "./stream.js";

const SHOWN_AT_MOST = 200;
const RETRY_MS = 1000;

const TRANSPORTS = {
  comet: { label: "Comet", offer: "comet", listen: listenComet },
  sse: { label: "Server-Sent Events", offer: "comet", listen: listenEvents },
  websocket: { label: "WebSocket", offer: "websocket", listen: listenWebSocket },
};

async function* listenComet(queue, signal, onOpen) {
  const response = await request(path("/c/", queue), { signal });
  onOpen();
  for await (const line of lines(response)) if (line) yield JSON.parse(line);
}

async function* listenEvents(queue, signal, onOpen) {
  const response = await request(path("/sse/", queue), { signal });
  onOpen();
  for await (const event of events(response)) {
    if (event.type === "message") yield { key: event.id, value: event.data, encoding: event.encoding };
  }
}

async function* listenWebSocket(queue, signal, onOpen) {
  const socket = new WebSocket(webSocketAddress(path("/ws/", queue)), "restmq");
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
  #queue;
  #may;
  #abort = null;
  #received = 0;

  constructor(name, queue, may) {
    this.#name = name;
    this.#queue = queue;
    this.#may = may;
    this.warning = h("p", { class: "note", id: "tail-warning" });
    this.choices = Object.entries(TRANSPORTS).map(([transport, { label }], i) => h("label", {},
      h("input", { type: "radio", name: "tail", value: transport, checked: i === 0 }), label));
    this.go = h("button", { type: "button", class: "main", "aria-describedby": "tail-warning", on: { click: () => (this.#abort ? this.stop() : this.#start()) } });
    this.state = h("span", { class: "aside", role: "status" });
    this.list = h("ol", { class: "messages tail", "aria-label": "Received messages, newest first" });
    this.element = h("section", { class: "panel", "aria-labelledby": "tail-title" },
      h("header", {}, h("h2", { id: "tail-title" }, "Live tail"), this.state),
      h("div", { class: "line" }, h("fieldset", { class: "choice" }, h("legend", { class: "unseen" }, "Transport"), ...this.choices), this.go),
      this.warning, this.list);
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
    const { row } = this.#queue();
    const [text, isTaking] = caution(row, this.#queue().consumers);
    this.warning.hidden = this.#abort !== null;
    setText(this.warning, text);
    setClass(this.warning, "warn", isTaking);
    setText(this.go, this.#abort ? "Stop" : isTaking ? "Listen, and take messages" : "Listen");
  }

  #chosen() {
    return this.choices.map((choice) => choice.firstChild).find((radio) => radio.checked);
  }

  async #start() {
    const abort = new AbortController();
    this.#abort = abort;
    const transport = TRANSPORTS[this.#chosen().value];
    this.#received = 0;
    this.list.replaceChildren();
    this.update();
    while (!abort.signal.aborted) {
      setText(this.state, "Connecting…");
      try {
        const listening = () => setText(this.state, `Listening by ${transport.label}`);
        for await (const message of transport.listen(this.#name, abort.signal, listening)) this.#show(message);
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
    if (message.event === "gap") return;
    this.#received += 1;
    const body = h("div", { class: "message-body" });
    const details = h("details", { on: { toggle: () => { if (details.open && !body.childNodes.length) body.append(renderValue(message.value, message.encoding, false)); } } },
      h("summary", {}, h("code", { class: "key" }, message.key.slice(message.key.lastIndexOf(":") + 1)),
        h("span", { class: "preview" }, preview(message.value, message.encoding)), h("span", { class: "facts" }, h("time", {}, clock(Date.now())))), body);
    this.list.prepend(h("li", { data: { key: message.key } }, details));
    while (this.list.childElementCount > SHOWN_AT_MOST) this.list.lastElementChild.remove();
  }
}

/** What listening does to the queue in its current state, and whether it takes messages from others. */
function caution(row, consumers) {
  if (row.policy !== "broadcast") {
    return ["This is a real consumer. With round robin it takes each message that it gets from the queue; no other consumer gets that message.", true];
  }
  if (row.ready && row.started) {
    return [`This is a real consumer. It takes the ${plural(row.ready, "waiting message")} from the queue.`, true];
  }
  if (consumers) return ["This is a real consumer. The queue broadcasts, so all other consumers get the same messages.", false];
  return ["This is a real consumer. While it is the only one, new messages go to it and do not wait for others.", true];
}
